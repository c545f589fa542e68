"""What an output of a sales agent implies. Pure; the engine applies it in the transaction of the output."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from agents.spec import (
    Effect,
    Facts,
    OpenReview,
    OutputEvent,
    ScheduleTrigger,
    Send,
    SetItem,
    Suppress,
    WithdrawTriggers,
)
from leads.progress import status
from leads.schemas import SalesSettings
from runs.wording import in_words

PRIORITIES = {"Hot": 20, "Warm": 40, "Cold": 80}
"""Smaller is sooner. Between a prospect who waits (10) and a bulk import (90)."""

_CATEGORY_TAGS = ("spam", "job_application", "vendor_pitch", "student", "other")
_OUTREACH = ("new", "qualified", "nurturing", "drafted", "approved", "shelved", "contacted")
_PURPOSES = {"item": "first_mail", "follow_up": "follow_up", "reply": "answer"}
_NOUNS = {"item": "first mail", "follow_up": "follow-up", "reply": "answer"}


def effects(event: OutputEvent) -> list[Effect]:
    """The effects of one event, in the order they are to be applied; empty if it implies nothing."""
    if event.what == "sent" and event.key == "email":
        return _after_sending(event)
    if event.what == "approved":
        return _sends(event)
    if event.what != "written":
        return []
    handler = _WRITTEN.get(event.key)
    return handler(event) if handler else []


def _sends(event: OutputEvent) -> list[Effect]:
    """What leaves the house once it is approved: the mail to the lead, the update of the CRM."""
    if event.key == "email":
        content = {name: str(event.payload.get(name, "")) for name in ("subject", "body")}
        return [Send("email", _PURPOSES.get(event.occasion_kind, "mail"), content)]
    if event.key == "crm_update":
        changes = {str(change["field"]): change["value"] for change in event.payload.get("changes") or []}
        stage = event.payload.get("stage", "unchanged")
        # An update that changes nothing is not worth a request.
        return (
            [Send("crm", "crm_update", {"stage": stage, "fields": changes})] if changes or stage != "unchanged" else []
        )
    return []


def _intake(event: OutputEvent) -> list[Effect]:
    category, country = str(event.payload.get("category", "")), str(event.payload.get("country", ""))
    language = str(event.payload.get("language", ""))
    kept = event.facts.tags if event.facts else frozenset()
    # An earlier classification's tags go; those of people and imports stay.
    tags = {tag for tag in kept if tag not in _CATEGORY_TAGS and not tag.startswith(("lang:", "country:"))}
    tags |= {category} & set(_CATEGORY_TAGS)
    tags |= {f"lang:{language}"} if language else set()
    tags |= {f"country:{country}"} if country else set()
    doubt = _doubt(event, f"Is this message really a case of “{in_words(category)}”?")
    return [SetItem({"tags": sorted(tags)}), *doubt]


def _qualification(event: OutputEvent) -> list[Effect]:
    tier = str(event.payload.get("tier", ""))
    found: list[Effect] = []
    if tier in PRIORITIES:
        found.append(SetItem({"priority": PRIORITIES[tier]}))
    return found + _doubt(event, f"Is {tier} with {event.payload.get('score')} points right for this lead?")


def _draft(event: OutputEvent) -> list[Effect]:
    if event.occasion_kind != "reply":
        return []
    found: list[Effect] = []
    intent = str(event.payload.get("intent", ""))
    opt_out = event.payload.get("opt_out") is True
    if opt_out:
        found.append(Suppress("opt_out"))
    stop = "out_of_office" if intent == "out_of_office" else "reply"
    if opt_out or _stops(event.settings, stop):
        reason = "They asked not to be written to again." if opt_out else "They have replied."
        found.append(WithdrawTriggers("follow_up", reason))
    return found + _doubt(event, f"Does this reply really mean “{in_words(intent)}”?", risk=2)


def _email(event: OutputEvent) -> list[Effect]:
    noun = _NOUNS.get(event.occasion_kind, "mail")
    subject = str(event.payload.get("subject", "")).strip() or "without a subject"
    mail = f"the {noun} “{subject}”{_lack(event)}"
    removed = event.payload.get("removed_claims") or []
    unsupported = _unsupported(event)
    if not isinstance(unsupported, int):
        return [OpenReview("draft", f"Send {mail.rstrip(',')}, although nobody has checked its claims?", risk=3)]
    left = max(unsupported - len(removed), 0)
    if left:
        claims = "1 claim that has" if left == 1 else f"{left} claims that have"
        return [OpenReview("draft", f"Send {mail} with {claims} no source?", risk=3)]
    if unsupported:
        claims = "1 claim without a source was" if unsupported == 1 else f"{unsupported} claims without a source were"
        return [OpenReview("draft", f"Send {mail.rstrip(',')}, from which {claims} taken out?", risk=2)]
    return [OpenReview("draft", f"Send {mail.rstrip(',')}?", risk=1)]


def _lack(event: OutputEvent) -> str:
    """That the mail was written without research, which an answer is not made from; empty if nothing is missing."""
    if event.facts is None or event.occasion_kind == "reply":
        return ""
    has_research = any(output.key == "research" for output in event.facts.outputs)
    return "" if has_research else ", written without research,"


def _unsupported(event: OutputEvent) -> Any:
    """What the Fact-Checker counted for this mail; None if it did not check the draft behind it."""
    outputs = event.facts.outputs if event.facts else ()
    return next(
        (o.facets.get("unsupported") for o in outputs if (o.key, o.occasion) == ("fact_check", event.occasion)),
        None,
    )


def _crm_update(event: OutputEvent) -> list[Effect]:
    if event.payload.get("stage") not in ("meeting", "won", "lost") or not _stops(event.settings, "decision"):
        return []
    return [WithdrawTriggers("follow_up", f"The lead is decided: {event.payload['stage']}.")]


_WRITTEN = {
    "intake": _intake,
    "qualification": _qualification,
    "draft": _draft,
    "email": _email,
    "crm_update": _crm_update,
}


def _after_sending(event: OutputEvent) -> list[Effect]:
    """The next follow-up. ``number`` in its payload counts from 1; the first mail has none."""
    if event.occasion_kind == "item":
        sent = 0
    elif event.occasion_kind == "follow_up":
        number = event.occasion_payload.get("number")
        # A follow-up somebody planned by hand has no place in the cadence, so nothing follows from it.
        if not isinstance(number, int) or number < 1:
            return []
        sent = number
    else:
        return []
    cadence = _cadence(event.settings)
    if sent >= len(cadence) or not _outreach_goes_on(event.facts):
        return []
    return [ScheduleTrigger("follow_up", timedelta(days=cadence[sent]), {"number": sent + 1})]


def _outreach_goes_on(facts: Facts | None) -> bool:
    return facts is None or status(facts) in _OUTREACH


def _cadence(settings: Mapping[str, Any]) -> list[int]:
    """Days between mails; the default where the setting is missing, empty where somebody emptied it."""
    value = settings.get("cadence")
    if not isinstance(value, list):
        return list(SalesSettings().cadence)
    return [days for days in value if isinstance(days, int) and days > 0]


def _stops(settings: Mapping[str, Any], happened: str) -> bool:
    value = settings.get("stop_rules")
    return happened in (value if isinstance(value, list) else SalesSettings().stop_rules)


def _doubt(event: OutputEvent, ask: str, risk: int = 1) -> list[Effect]:
    return [OpenReview("low_confidence", ask, risk)] if event.payload.get("confidence") == "low" else []
