from django.urls import path

from runs.views import alerts, first_steps, incidents, runbook

urlpatterns = [
    path("departments/<slug:slug>/first-steps/", first_steps.first_steps, name="first_steps"),
    path("departments/<slug:slug>/first-steps/panel/", first_steps.first_steps_panel, name="first_steps_panel"),
    path("departments/<slug:slug>/examples/go-on/", first_steps.examples_go_on, name="examples_go_on"),
    path("incidents/<int:pk>/export/", incidents.incident_export, name="incident_export"),
    path("runs/<int:pk>/export/", incidents.run_export, name="run_export"),
    path("alerts/", alerts.alert_list, name="alerts"),
    path("runbook/", runbook.runbook, name="runbook"),
]
