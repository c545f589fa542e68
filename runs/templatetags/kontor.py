"""Filters and tags of all pages: times, money, durations, icons, states, navigation."""

from __future__ import annotations

import json
from datetime import datetime, tzinfo
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from django import template
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import capfirst

from agents.models import Agent
from agents.spec import DepartmentSpec
from runs import wording
from runs.access import access_of
from runs.edit_patterns import Pattern
from runs.payloads import as_text
from runs.views.banners import banner_context
from runs.views.menu import department_url, menu_groups
from runs.views.shown import Shown
from runs.wording import in_words

register = template.Library()

_ASKING = ("review", "answer", "deadline", "outbox", "retry", "automation", "alert")
"""The kinds of log lines with which a question is opened, answered or postponed."""
_AGES = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


@register.simple_tag
@lru_cache(maxsize=1_000, typed=True)  # a text and a safe one are not the same
def icon(name: str, label: str = "") -> SafeString:
    """An icon of the sprite. Without a label it is decoration and hidden from screen readers.

    Kept: a list has hundreds of the same few, and the address of the sprite stays while a process lives.
    """
    address = f"{static('vendor/tabler-icons-3.51.0/icons.svg')}#{name}"
    if label:
        return format_html(
            '<svg class="icon k-icon" role="img" aria-label="{}"><use href="{}"></use></svg>', label, address
        )
    return format_html('<svg class="icon k-icon" aria-hidden="true"><use href="{}"></use></svg>', address)


@register.filter
def ago(moment: datetime | None) -> SafeString | str:
    """How long ago, or in how long: ``12 s ago``, ``in 4 d``; the page keeps it up to date."""
    if moment is None:
        return ""
    return _time(moment, describe_age((timezone.now() - moment).total_seconds()), "data-ago")


@register.filter
def age(moment: datetime | None) -> SafeString | str:
    """How long something has lasted: ``12 s``."""
    if moment is None:
        return ""
    return _time(moment, measure((timezone.now() - moment).total_seconds()), "data-age")


@register.filter
def due(moment: datetime | None) -> SafeString | str:
    """When something is to happen: ``in 12 s``, and ``now`` once the time has come."""
    if moment is None:
        return ""
    seconds = (moment - timezone.now()).total_seconds()
    return _time(moment, f"in {measure(seconds)}" if seconds >= 1 else "now", "data-due")


@register.filter
def moment(value: datetime | None) -> SafeString | str:
    """Date and time to the second, in the person's zone."""
    if value is None:
        return ""
    return _time(value, f"{timezone.localtime(value):%Y-%m-%d %H:%M:%S}", "data-moment")


@register.filter
def day(value: datetime | None, zone: tzinfo | str) -> str:
    """The day in a department's zone, whatever that of the reader is: ``Thu 26 Nov``."""
    if value is None:
        return ""
    return date_format(timezone.localtime(value, ZoneInfo(zone) if isinstance(zone, str) else zone), "D j M")


@register.filter
def clock(value: datetime | None) -> SafeString | str:
    """The time of day to the millisecond, in the person's zone."""
    if value is None:
        return ""
    local = timezone.localtime(value)
    return _time(value, f"{local:%H:%M:%S}.{local.microsecond // 1000:03d}", "data-moment")


@register.filter
def after(value: datetime, beginning: datetime) -> SafeString:
    """How long after a beginning it was: ``+2.4 s``, with the date and time as the title."""
    return _time(value, f"+{duration((value - beginning).total_seconds())}", "")


def _time(value: datetime, text: str, mark: str) -> SafeString:
    """``mark`` names what the page keeps up to date."""
    return format_html(
        '<time datetime="{}" title="{}" {}>{}</time>',
        value.isoformat(),
        f"{timezone.localtime(value):%Y-%m-%d %H:%M:%S %Z}",
        mark,
        text,
    )


def describe_age(seconds: float) -> str:
    """``just now``, ``12 s ago``, ``3 min ago``; negative seconds lie ahead: ``in 2 h``."""
    if abs(seconds) < 1:
        return "just now"
    return f"{measure(seconds)} ago" if seconds > 0 else f"in {measure(seconds)}"


def measure(seconds: float) -> str:
    """A time in its largest unit: ``12 s``, ``3 min``, ``2 h``, ``4 d``."""
    distance = abs(seconds)
    size, unit = next(((size, unit) for size, unit in _AGES if distance >= size), (1, "s"))
    return f"{int(distance // size)} {unit}"


@register.filter
def duration(seconds: float | None) -> str:
    """``480 ms``, ``2.4 s``, ``3 min 5 s``, ``2 h 4 min``."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


@register.filter
def within(seconds: float | None) -> str:
    """The upper bound of a histogram's bucket: ``5 s``; ``over 5 min`` for what lies behind the last one."""
    if seconds is None:
        return ""
    return "over 5 min" if seconds == float("inf") else measure(seconds)


@register.filter
def usd(amount: Decimal | float | None) -> str:
    """US dollars: two places from one dollar on, four below, and ``<$0.0001`` for what is less than that."""
    if amount is None:
        return ""
    value = Decimal(amount)
    if value == 0:
        return "$0"
    sign = "-" if value < 0 else ""
    if abs(value) < Decimal("0.0001"):
        return f"{sign}<$0.0001"
    places = Decimal("0.01") if abs(value) >= 1 else Decimal("0.0001")
    return f"{sign}${abs(value).quantize(places, ROUND_HALF_UP):,}"


@register.filter
def saved(amount: Decimal) -> str:
    """A saving in US dollars, or a loss by what was to save: ``$1.20 saved``, ``cost $0.0100 more``."""
    return f"cost {usd(-amount)} more" if amount < 0 else f"{usd(amount)} saved"


@register.filter
def count(number: int) -> str:
    """A whole number with its thousands: ``1,234,567``."""
    return f"{number:,}"


@register.filter
def signed(number: int) -> str:
    """A change with its sign: ``+12``, ``-3``."""
    return f"{number:+,}"


@register.filter
@lru_cache(maxsize=10)
def risk(level: int) -> SafeString:
    """How risky what is asked is, from 1 to 3, as a badge."""
    colour, label = ("bad", "high") if level >= 3 else ("warning", "medium") if level == 2 else ("neutral", "low")
    return format_html('<span class="k-status" data-colour="{}">{}</span>', colour, label)


@register.filter
def percent(share: float | None) -> str:
    """A share of one in whole per cent: ``84 %``; empty without one."""
    return "" if share is None else f"{share * 100:.0f} %"


@register.filter
def choice(value: Any) -> str:
    """A value of a classification as a form sends it."""
    return as_text(value)


@register.filter
def pretty_json(value: Any) -> str:
    """JSON for reading, indented by two."""
    return json.dumps(value, ensure_ascii=False, indent=2, default=str)


@register.filter
def words(name: str) -> str:
    """A field's name as words: ``fit_reasons`` becomes ``Fit reasons``."""
    return capfirst(in_words(name))


@register.filter
def facet(name: str, kind: DepartmentSpec | None) -> str:
    """A promoted field as its schema calls it: ``reply intent``."""
    return wording.facet_label(name, kind)


@register.filter
def because(cause: str) -> str:
    """What set off a pipeline run, in words."""
    return capfirst(wording.because(cause))


@register.filter
def plain(value: Any) -> str:
    """JSON as words: ``[new, qualified]`` as ``new or qualified``, an object as ``tier Hot or Warm``."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {plain(entry)}" for name, entry in value.items()) or "nothing"
    if isinstance(value, list):
        return " or ".join(plain(entry) for entry in value) or "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "nothing" if value in (None, "") else str(value)


@register.simple_tag
def soul_edit_url(agent: Agent, pattern: Pattern) -> str:
    """Where a draft of the agent's SOUL is written, with what people change again and again as a suggestion."""
    try:
        address = reverse("runs:soul_edit", args=[agent.pk])
    except NoReverseMatch:
        return ""
    return f"{address}?{urlencode({'suggest': pattern.suggestion})}"


@register.simple_tag
@lru_cache(maxsize=1_000, typed=True)
def options(values: tuple[str, ...], chosen: str) -> SafeString:
    """The options of a select, of which one may be chosen. Kept: the costs page has the same models for each agent."""
    rows = ((SafeString(" selected" if value == chosen else ""), value) for value in values)
    return format_html_join("", "<option{}>{}</option>", rows)


@register.simple_tag
def status(shown: Shown, details: bool = False) -> SafeString:
    """A state as a badge; with ``details`` also what it waits for, since when, and what comes next."""
    badge = _badge(shown.label, shown.colour, shown.icon, shown.is_live)
    if not details or not shown.note:
        return badge
    return format_html('{}<span class="k-waits">{}</span>', badge, waits(shown))


@register.simple_tag
def waits(shown: Shown) -> SafeString:
    """What a state waits for, since when, and what comes next. No template: a list has one in every row."""
    since = format_html(" Waiting for {}.", age(shown.since)) if shown.since else ""
    then_at = format_html(" {}", due(shown.then_at)) if shown.then_at else ""
    then = format_html(" {}{}.", shown.then, then_at) if shown.then else ""
    return format_html("{}{}{}", shown.note, since, then)


@lru_cache(maxsize=1_000, typed=True)
def _badge(label: str, colour: str, icon_name: str, is_live: bool) -> SafeString:
    # Kept as icons are: a list has one in every row.
    live = SafeString(" data-changing" if is_live else "")
    return format_html('<span class="k-status" data-colour="{}"{}>{}{}</span>', colour, live, icon(icon_name), label)


@register.simple_tag(takes_context=True)
def shown_department(context: template.Context) -> str:
    """The slug of the department that the page shows, or ``all``: htmx asks for parts of the page by it."""
    current = access_of(context["request"]).current
    return current.slug if current else "all"


@register.simple_tag(takes_context=True)
def shown_events(context: template.Context) -> str:
    """For ``data-live`` of a part that shows whatever happens in the department that is chosen, or in all."""
    current = access_of(context["request"]).current
    return f"department:{current.pk}" if current else "all"


@register.simple_tag(takes_context=True)
def shown_questions(context: template.Context) -> str:
    """The same for a part that shows how many questions are open: what opens, answers or postpones them."""
    of = shown_events(context)
    return " ".join(f"kind:{kind}" if of == "all" else f"{of}+kind:{kind}" for kind in _ASKING)


@register.inclusion_tag("_navigation.html", takes_context=True)
def navigation(context: template.Context) -> dict[str, Any]:
    """Where to go, which department is shown, whether the page is live, who is signed in."""
    request: HttpRequest = context["request"]
    access = access_of(request)
    groups = menu_groups(request, access)
    return {
        "request": request,
        "user": request.user,
        "access": access,
        "menu": render_to_string("_menu.html", {"groups": groups}),  # made once: it stands on a page twice
        "department_url": department_url(request, groups),
        "csrf_token": context.get("csrf_token"),
    }


@register.inclusion_tag("_banners.html", takes_context=True)
def banners(context: template.Context) -> dict[str, Any]:
    """What must be known on every page: simulated answers, a line that stands still, a stopped department."""
    return banner_context(context["request"])
