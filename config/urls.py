from django.conf import settings
from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import include, path

from leads.webhooks import receive_leads
from runs.views.accounts import PasswordChange

urlpatterns = [
    path("login/", auth.LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("logout/", auth.LogoutView.as_view(), name="logout"),
    path("password/", PasswordChange.as_view(), name="password"),
    path("admin/", admin.site.urls),
    path("leads/", include("leads.urls")),
    path("hooks/<slug:department>/leads/", receive_leads, name="leads-hook"),
    path("", include("runs.urls")),
]

if settings.ANYMAIL.get("WEBHOOK_SECRET"):
    # Without the secret anybody could report bounces: the provider's door is shut.
    urlpatterns.append(path("hooks/provider/", include("anymail.urls")))
