"""What an administrator sets up, and a person's own account."""

from django.urls import path

from runs.views import accounts, department_settings

urlpatterns = [
    path("settings/", department_settings.settings, name="settings"),
    path(
        "settings/<slug:department>/<slug:section>/",
        department_settings.department_settings,
        name="department_settings",
    ),
    path("account/", accounts.account, name="account"),
]
