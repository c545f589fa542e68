"""Saved views of lists, and the columns a person has chosen."""

from django.urls import path

from runs.views import saved_views

urlpatterns = [
    path("views/save/", saved_views.view_save, name="view_save"),
    path("views/columns/", saved_views.view_columns, name="view_columns"),
    path("views/<int:pk>/rename/", saved_views.view_rename, name="view_rename"),
    path("views/<int:pk>/delete/", saved_views.view_delete, name="view_delete"),
    path("views/<int:pk>/default/", saved_views.view_default, name="view_default"),
]
