"""Agents, their SOULs, and trying them."""

from django.urls import path

from runs.views import agents, souls, tryouts

urlpatterns = [
    path("agents/", agents.agent_list, name="agents"),
    path("agents/panel/", agents.agents_panel, name="agents_panel"),
    path("agents/<int:pk>/", agents.agent_detail, name="agent"),
    path("agents/<int:pk>/panel/", agents.agent_panel, name="agent_panel"),
    path("agents/<int:pk>/settings/", agents.agent_settings_form, name="agent_settings"),
    path("agents/<int:pk>/change/", agents.agent_change, name="agent_change"),
    path("agents/<int:pk>/switch/", agents.agent_switch, name="agent_switch"),
    path("agents/<int:pk>/soul/", souls.soul_edit, name="soul_edit"),
    path("agents/<int:pk>/soul/save/", souls.soul_save, name="soul_save"),
    path("agents/<int:pk>/soul/preview/", souls.soul_preview, name="soul_preview"),
    path("agents/<int:pk>/soul/history/", souls.soul_history, name="soul_history"),
    path("agents/<int:pk>/soul/diff/", souls.soul_diff, name="soul_diff"),
    path("agents/<int:pk>/soul/publish/", souls.soul_publish, name="soul_publish"),
    path("agents/<int:pk>/soul/publish/do/", souls.soul_publish_do, name="soul_publish_do"),
    path("agents/<int:pk>/soul/roll-back/", souls.soul_rollback, name="soul_rollback"),
    path("agents/<int:pk>/soul/roll-back/do/", souls.soul_rollback_do, name="soul_rollback_do"),
    path("agents/<int:pk>/soul/discard/", souls.soul_discard, name="soul_discard"),
    path("agents/<int:pk>/try/", tryouts.tryout, name="tryout"),
    path("agents/<int:pk>/try/start/", tryouts.tryout_start, name="tryout_start"),
    path("tryouts/<int:pk>/", tryouts.tryout_result, name="tryout_result"),
    path("tryouts/<int:pk>/panel/", tryouts.tryout_panel, name="tryout_panel"),
    path("tryouts/<int:pk>/stop/", tryouts.tryout_stop, name="tryout_stop"),
]
