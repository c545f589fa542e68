from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import include, path

from leads.webhooks import receive_leads

urlpatterns = [
    path("login/", auth.LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("logout/", auth.LogoutView.as_view(), name="logout"),
    path("admin/", admin.site.urls),
    path("leads/", include("leads.urls")),
    path("hooks/<slug:department>/leads/", receive_leads, name="leads-hook"),
    path("", include("runs.urls")),
]
