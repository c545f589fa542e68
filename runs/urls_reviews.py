"""Around the review queue: questions that wait, drafts that are alike, and people who are away."""

from django.urls import path

from runs.views import absences, review_groups, review_waits

urlpatterns = [
    path("reviews/<int:pk>/snooze/", review_waits.review_snooze, name="review_snooze"),
    path("reviews/<int:pk>/wake/", review_waits.review_wake, name="review_wake"),
    path("reviews/<int:pk>/compare/", review_waits.review_compare, name="review_compare"),
    path("reviews/alike/<int:pk>/", review_groups.review_group, name="review_group"),
    path("reviews/alike/<int:pk>/panel/", review_groups.review_group_panel, name="review_group_panel"),
    path("reviews/alike/<int:pk>/approve/", review_groups.review_group_approve, name="review_group_approve"),
    path("account/away/", absences.away, name="away"),
    path("account/away/plan/", absences.away_plan, name="away_plan"),
    path("account/away/<int:pk>/end/", absences.away_end, name="away_end"),
]
