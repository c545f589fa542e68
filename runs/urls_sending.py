"""What leaves the house: outbox, channels, the list of those nobody writes to, and the doors for strangers."""

from __future__ import annotations

from django.urls import path

from runs.views import mailbox, outbox, public, suppressions

urlpatterns = [
    path("outbox/", outbox.outbox_list, name="outbox"),
    path("outbox/<int:pk>/", outbox.outbox_detail, name="outbox_message"),
    path("outbox/<int:pk>/panel/", outbox.outbox_panel, name="outbox_panel"),
    path("outbox/<int:pk>/withdraw/", outbox.outbox_withdraw, name="outbox_withdraw"),
    path("outbox/<int:pk>/by-hand/", outbox.outbox_by_hand, name="outbox_by_hand"),
    path("outbox/<int:pk>/settle/", outbox.outbox_settle, name="outbox_settle"),
    path("outbox/<int:pk>/again/", outbox.outbox_again, name="outbox_again"),
    path("channels/<int:pk>/test/", outbox.channel_test, name="channel_test"),
    path("suppressions/", suppressions.suppression_list, name="suppressions"),
    path("suppressions/add/", suppressions.suppression_add, name="suppression_add"),
    path("suppressions/<int:pk>/lift/", suppressions.suppression_lift, name="suppression_lift"),
    path("mailbox/", mailbox.mailbox, name="mailbox"),
    path("unsubscribe/<str:token>/", public.unsubscribe, name="unsubscribe"),
    path("hooks/<slug:department>/mail-events/", public.mail_events_hook, name="mail_events"),
]
