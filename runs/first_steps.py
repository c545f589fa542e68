"""What a new department needs before it works, each step read from what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Exists, OuterRef, QuerySet
from django.urls import reverse

from agents.models import Department
from agents.spec import DepartmentSpec, FirstStep, SettingsSection, StatusSpec
from runs.examples import EXAMPLES, held_items
from runs.models import Channel, Item, Output, PipelineRun
from runs.send_situation import closed
from runs.wording import in_words

EMAIL = "email"


@dataclass(frozen=True, slots=True)
class Examples:
    """The first items that were worked on, each with what is so without a final text and whether that is there; what
    waits."""

    items: Sequence[tuple[Item, str, bool]]
    held: int

    @property
    def ready(self) -> int:
        """How many have their final text."""
        return sum(is_ready for _, _, is_ready in self.items)


def read_steps(department: Department, *, held: int | None = None) -> list[FirstStep]:
    """The steps in their order; a kind that no installed app declares has none. ``held``: how many items wait for a
    person's word, where they were counted already."""
    try:
        spec = department.spec
    except LookupError:
        return []
    own = spec.first_steps(department) if spec.first_steps is not None else ()
    return [
        *_settings(department, spec),
        _mailbox(department),
        *own,
        _examples(department, spec, held_items(department).count() if held is None else held),
    ]


def read_examples(department: Department, *, held: int | None = None) -> Examples:
    """The department's first items with what became of them; three queries, two with ``held``."""
    # Not a join: that would bring each item as often as it was worked on, and sort all of them to drop the others.
    worked_on = Exists(PipelineRun.objects.filter(item=OuterRef("pk")))
    items = list(Item.objects.filter(worked_on, department=department).order_by("pk")[:EXAMPLES])
    for item in items:
        item.department = department
    ready = set(_finals(department).filter(item__in=items).values_list("item_id", flat=True))
    return Examples(
        items=[(item, _without(department.spec.status_spec(item.status)), item.pk in ready) for item in items],
        held=held_items(department).count() if held is None else held,
    )


def _without(status: StatusSpec) -> str:
    is_over = status.is_closing or status.is_resting
    return f"none{'' if is_over else ' yet'}. {status.label}"


def are_done(steps: Sequence[FirstStep]) -> bool:
    """Whether nothing is open."""
    return all(step.is_done for step in steps)


def _settings(department: Department, spec: DepartmentSpec) -> list[FirstStep]:
    wanted = [section for section in spec.settings_sections if section.slug in spec.first_sections]
    return [_section(department, spec, section) for section in wanted]


def _section(department: Department, spec: DepartmentSpec, section: SettingsSection) -> FirstStep:
    """Done when nothing of the kind's invented example is left: its facts would pass as this company's."""
    defaults = spec.settings_schema().model_dump(mode="json")
    own = department.settings
    left = [key for key in section.invented if _is_left(own.get(key, defaults[key]), defaults[key])]
    if not left:
        says = section.means
    elif len(left) == len(section.invented):
        says = f"It still describes an invented example. {section.means}"
    else:
        names = " and ".join(in_words(key) for key in left)
        says = f"Still of an invented example: {names}. {section.means}"
    url = reverse("runs:department_settings", args=[department.slug, section.slug])
    return FirstStep(section.slug, section.label, not left, says, url, "Fill in" if left else "Change")


def _is_left(value: Any, default: Any) -> bool:
    """Whether a setting is still what its kind begins with; a list, as long as one row of that is in it."""
    if isinstance(value, list) and isinstance(default, list):
        return any(row in value for row in default)
    return bool(value == default)


def _mailbox(department: Department) -> FirstStep:
    channel = Channel.objects.filter(department=department, kind=EMAIL).first()
    problem = closed(channel, EMAIL)
    if problem:
        says = f"{problem} Nothing can leave before; drafts can be made without it."
    elif channel is not None and channel.tested_at is None:
        says = "It is set up, and no test mail has left over it yet. Send one to yourself."
    else:
        says = "A test mail has left over it."
    url = reverse("runs:department_settings", args=[department.slug, "channels"])
    is_done = not problem and channel is not None and channel.tested_at is not None
    return FirstStep("mailbox", "Mailbox and test mail", is_done, says, url, "Channels")


def _examples(department: Department, spec: DepartmentSpec, held: int) -> FirstStep:
    """Done when drafts are there and nothing waits for a person's word."""
    title, noun = "Five example drafts", f"{spec.item_label}s"
    has_drafts = _finals(department).exists()
    if held:
        what = spec.item_label if held == 1 else noun
        says = f"{held:,} {what} still to come. Read the examples below, correct what is wrong, then say go on."
    elif has_drafts:
        says = "Drafts are there, and nothing waits for your word."
    else:
        says = f"After the first upload five {noun} are worked on up to their drafts, and the rest waits for your word."
    return FirstStep("examples", title, has_drafts and not held, says, "#examples" if held else "", "Look at them")


def _finals(department: Department) -> QuerySet[Output]:
    """Final texts that agents have written here."""
    key = department.spec.final_key
    return Output.objects.filter(item__department=department, key=key, agent_run__isnull=False)
