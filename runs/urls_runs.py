"""Runs and what they consist of: the lists, the page of a run, calls, and two attempts side by side."""

from django.urls import path

from runs.views import calls, compare, pipelines, step_list

urlpatterns = [
    path("runs/", pipelines.run_list, name="list"),
    path("runs/<int:pk>/", pipelines.run_detail, name="detail"),
    path("runs/<int:pk>/panel/", pipelines.run_panel, name="panel"),
    path("steps/", step_list.step_list, name="steps"),
    path("steps/next-failure/", step_list.next_failure, name="next_failure"),
    path("steps/<int:pk>/compare/", compare.step_compare, name="step_compare"),
    path("calls/<int:pk>/", calls.call_detail, name="call"),
]
