"""What a person in charge does: items, steps, outputs by hand, switches, and one action on many."""

from django.urls import path

from runs.views import bulk, by_hand, controls, reruns, switches

urlpatterns = [
    path("items/<int:pk>/pause/", controls.item_pause, name="item_pause"),
    path("items/<int:pk>/resume/", controls.item_resume, name="item_resume"),
    path("items/<int:pk>/take-over/", controls.item_take_over, name="item_take_over"),
    path("items/<int:pk>/hand-back/", controls.item_hand_back, name="item_hand_back"),
    path("items/<int:pk>/close/", controls.item_close, name="item_close"),
    path("items/<int:pk>/reopen/", controls.item_reopen, name="item_reopen"),
    path("items/<int:pk>/cancel/", controls.item_cancel, name="item_cancel"),
    path("items/<int:pk>/by-hand/", by_hand.by_hand_page, name="by_hand"),
    path("items/<int:pk>/note/", by_hand.item_note, name="item_note"),
    path("items/<int:pk>/reply/", by_hand.item_reply, name="item_reply"),
    path("items/<int:pk>/tags/", by_hand.item_tags, name="item_tags"),
    path("items/<int:pk>/mail/", by_hand.item_mail, name="item_mail"),
    path("items/<int:pk>/outputs/new/", by_hand.output_new, name="output_new"),
    path("items/<int:pk>/outputs/", by_hand.output_write, name="output_write"),
    path("outputs/<int:pk>/edit/", by_hand.output_edit, name="output_edit"),
    path("outputs/<int:pk>/changes/", by_hand.output_history, name="output_history"),
    path("steps/<int:pk>/retry/", controls.step_retry, name="step_retry"),
    path("steps/<int:pk>/cancel/", controls.step_cancel, name="step_cancel"),
    path("steps/<int:pk>/rerun/", reruns.step_rerun, name="step_rerun"),
    path("steps/<int:pk>/rerun/start/", reruns.step_rerun_start, name="step_rerun_start"),
    path("switches/", switches.switch_page, name="switches"),
    path("switches/all/", switches.installation_switch, name="installation_switch"),
    path("switches/<int:pk>/", switches.department_switch, name="department_switch"),
    path("bulk/", bulk.bulk_list, name="bulk_list"),
    path("bulk/new/", bulk.bulk_new, name="bulk_new"),
    path("bulk/start/", bulk.bulk_start, name="bulk_start"),
    path("bulk/<int:pk>/", bulk.bulk_detail, name="bulk"),
    path("bulk/<int:pk>/panel/", bulk.bulk_panel, name="bulk_panel"),
    path("bulk/<int:pk>/abort/", bulk.bulk_abort, name="bulk_abort"),
]
