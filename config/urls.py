from django.conf import settings
from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import include, path

from leads.webhooks import receive_leads
from runs.views import signing_in
from runs.views.accounts import PasswordChange

admin.site.login_form = signing_in.AdminSignInForm
admin.site.site_header = admin.site.site_title = "Kontor administration"
admin.site.index_title = "What administrators look after"

urlpatterns = [
    path("login/", signing_in.SignIn.as_view(), name="login"),
    path("logout/", auth.LogoutView.as_view(), name="logout"),
    path("password/", PasswordChange.as_view(), name="password"),
    path("password/reset/", signing_in.Reset.as_view(), name="password_reset"),
    path("password/reset/sent/", signing_in.ResetSent.as_view(), name="password_reset_done"),
    path("password/reset/done/", signing_in.ResetComplete.as_view(), name="password_reset_complete"),
    path("password/reset/<uidb64>/<token>/", signing_in.ResetConfirm.as_view(), name="password_reset_confirm"),
    path("admin/", admin.site.urls),
    path("leads/", include("leads.urls")),
    path("hooks/<slug:department>/leads/", receive_leads, name="leads-hook"),
    path("", include("runs.urls")),
]

if settings.ANYMAIL.get("WEBHOOK_SECRET"):
    # Without the secret anybody could report bounces: the provider's door is shut.
    urlpatterns.append(path("hooks/provider/", include("anymail.urls")))
