from django.urls import path

from runs import live
from runs.views import calls, controls, incidents, logs, overview, pipelines, system

app_name = "runs"
urlpatterns = [
    path("", overview.overview, name="overview"),
    path("overview/panel/", overview.overview_panel, name="overview_panel"),
    path("runs/", pipelines.run_list, name="list"),
    path("runs/<int:pk>/", pipelines.run_detail, name="detail"),
    path("runs/<int:pk>/panel/", pipelines.run_panel, name="panel"),
    path("steps/<int:pk>/retry/", controls.step_retry, name="step_retry"),
    path("calls/<int:pk>/", calls.call_detail, name="call"),
    path("reviews/<int:pk>/approve/", controls.review_approve, name="review_approve"),
    path("reviews/<int:pk>/reject/", controls.review_reject, name="review_reject"),
    path("reviews/<int:pk>/accept/", incidents.review_accept, name="review_accept"),
    path("incidents/<int:pk>/", incidents.incident, name="incident"),
    path("incidents/<int:pk>/panel/", incidents.incident_panel, name="incident_panel"),
    path("incidents/<int:pk>/retry/", incidents.incident_retry, name="incident_retry"),
    path("incidents/<int:pk>/accept/", incidents.incident_accept, name="incident_accept"),
    path("bulk/<int:pk>/abort/", incidents.bulk_abort, name="bulk_abort"),
    path("outputs/<int:pk>/sent/", controls.output_sent, name="output_sent"),
    path("system/", system.system, name="system"),
    path("system/panel/", system.system_panel, name="system_panel"),
    path("system/restore/", system.system_restore, name="system_restore"),
    path("system/restore/panel/", system.system_restore_panel, name="system_restore_panel"),
    path("system/restore/<int:pk>/release/", system.restore_release, name="restore_release"),
    path("system/unsure/<int:pk>/settle/", system.unsure_settle, name="unsure_settle"),
    path("log/", logs.log_page, name="log"),
    path("events/", live.events, name="events"),
]
