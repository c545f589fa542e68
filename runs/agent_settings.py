"""How an agent works, as an administrator sets it: model, limits, who answers for it, on or off. With Action rows."""

from __future__ import annotations

import hashlib
import json
from typing import Any, ClassVar

from django import forms
from django.contrib.auth.models import User
from django.db import transaction
from django.http import QueryDict

from agents.models import Agent
from runs.admin_forms import AgentForm
from runs.allowed import YES, Allowed, no
from runs.database import now as database_now
from runs.models import Action, AgentRun

FIELDS = (
    *("model", "fallback_models", "effort", "max_tokens", "timeout_seconds", "latency_target_seconds"),
    *("output_policy", "reports_to", "escalate_to", "escalate_channel"),
)
SWITCHED_OFF = "The agent is switched off."


class AgentSettingsForm(AgentForm):
    """What may be changed while the department works; what is bound to code is in the declaration."""

    class Meta:
        model = Agent
        fields = FIELDS
        labels: ClassVar[dict[str, str]] = {
            "max_tokens": "Answer, at most (tokens)",
            "timeout_seconds": "Time-out (seconds)",
            "latency_target_seconds": "Latency target (seconds)",
            "escalate_to": "Trouble is told to (person)",
            "escalate_channel": "Trouble is told to (channel)",
        }
        help_texts: ClassVar[dict[str, str]] = {
            "model": "It must have a price. Another model changes quality and cost: try it first.",
            "timeout_seconds": "5 to 300.",
            "output_policy": "The kind may ask a person all the same, for example before a mail leaves.",
            "escalate_channel": "email:ops@example.com, slack, slack:NAME_OF_A_VARIABLE, or log.",
        }

    def __init__(self, *args: Any, user: User | None = None, **kwargs: Any) -> None:
        self.user = user
        super().__init__(*args, **kwargs)
        superior = self.fields["reports_to"]
        if isinstance(superior, forms.ModelChoiceField):
            superior.empty_label = "nobody"
            superior.label_from_instance = _title  # type: ignore[method-assign, assignment]
        person = self.fields["escalate_to"]
        if isinstance(person, forms.ModelChoiceField):
            person.empty_label = "nobody in particular"
        for name, field in self.fields.items():
            is_list = isinstance(field.widget, forms.Select)
            field.widget.attrs["class"] = "form-select" if is_list else "form-control"
            if name in ("model", "fallback_models"):
                field.widget.attrs["list"] = "known-models"
            if name in self.errors:
                field.widget.attrs |= {"aria-invalid": "true", "aria-describedby": f"id_{name}-error"}

    def clean_latency_target_seconds(self) -> int:
        """At least a second; beyond the time-out nothing would ever be late."""
        seconds: int = self.cleaned_data["latency_target_seconds"]
        limit = self.cleaned_data.get("timeout_seconds")
        if seconds < 1 or (limit is not None and seconds > limit):
            raise forms.ValidationError(f"1 second to the time-out{f', {limit} seconds' if limit else ''}.")
        return seconds


def stamp(agent: Agent) -> str:
    """Changes when a setting does: whoever saves hands back the one they were shown."""
    return hashlib.sha256(json.dumps(_values(agent)).encode()).hexdigest()[:20]


def change(*, agent: Agent, given: QueryDict, user: User, seen: str) -> tuple[Allowed, AgentSettingsForm]:
    """Store what the form says. With a refusal the form has the errors, or somebody else was faster."""
    with transaction.atomic():
        row = Agent.objects.select_for_update(of=("self",)).select_related("department").get(pk=agent.pk)
        before, now = _values(row), stamp(row)
        form = AgentSettingsForm(given, instance=row, user=user)
        if now != seen:
            return no("Somebody else has changed this agent meanwhile. Below is what you entered; load it anew."), form
        if not form.is_valid():
            return no("Nothing was saved: see below."), form
        row = form.save(commit=False)
        after = _values(row)
        changed = [name for name in FIELDS if before[name] != after[name]]
        if not changed:
            return no("Nothing was changed."), form
        row.save(update_fields=changed)
        _act(row, user, "change_agent", {n: before[n] for n in changed}, {n: after[n] for n in changed})
    return YES, form


def switch(*, agent: Agent, is_enabled: bool, user: User, reason: str = "") -> bool:
    """Switch an agent on or off. Off: its steps wait, and who uses its output goes on without. False if it is so."""
    with transaction.atomic():
        if not Agent.objects.filter(pk=agent.pk, is_enabled=not is_enabled).update(is_enabled=is_enabled):
            return False
        _act(
            agent,
            user,
            "enable_agent" if is_enabled else "disable_agent",
            {"is_enabled": not is_enabled},
            {"is_enabled": is_enabled},
            reason,
        )
        if is_enabled:
            # Whoever is being claimed just now is left out, not waited for.
            waiting = AgentRun.objects.filter(
                agent=agent, status=AgentRun.Status.QUEUED, waiting_for__startswith=SWITCHED_OFF
            ).order_by("pk")
            ids = list(waiting.select_for_update(skip_locked=True, of=("self",)).values_list("pk", flat=True))
            AgentRun.objects.filter(pk__in=ids).update(due_at=database_now(), waiting_for="")
    return True


def _title(agent: Agent) -> str:
    return agent.title


def _values(agent: Agent) -> dict[str, Any]:
    """The settings as JSON; people and superiors by name."""
    found = {name: getattr(agent, name) for name in FIELDS}
    found["reports_to"] = agent.reports_to.slug if agent.reports_to else ""
    found["escalate_to"] = agent.escalate_to.get_username() if agent.escalate_to else ""
    return found


def _act(agent: Agent, user: User, verb: str, before: dict[str, Any], after: dict[str, Any], reason: str = "") -> None:
    Action.objects.create(
        department_id=agent.department_id,
        user=user,
        verb=verb,
        target=f"agent:{agent.pk}",
        before={"agent": agent.slug, **before},
        after=after,
        reason=reason[:300],
    )
