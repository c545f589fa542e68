from django.urls import path

from runs import live
from runs.views import calls, controls, logs, overview, pipelines

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
    path("outputs/<int:pk>/sent/", controls.output_sent, name="output_sent"),
    path("log/", logs.log_page, name="log"),
    path("events/", live.events, name="events"),
]
