"""Acting by hand on an item: notes and calls, a reply that came elsewhere, a mail, and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.text import capfirst
from django.views.decorators.http import require_POST, require_safe
from pydantic import BaseModel, ValidationError

from agents.models import Member
from agents.spec import ITEM
from runs import allowed as may
from runs import by_hand
from runs.access import access_of, get_visible, require, signed_in
from runs.models import Item, Output, Trigger
from runs.sendable import address_of
from runs.tagging import change_tags, read_tags
from runs.views.answers import answer, is_htmx
from runs.views.cards import REASONING
from runs.views.changes import read_changes
from runs.views.forms import read_moment, read_number
from runs.views.output_forms import build_inputs, errors_by_field, read_payload
from runs.wording import in_words

Role = Member.Role
MAX_TEXT = 20_000
TRIGGERS_SHOWN = 5
VERSIONS = 50


@signed_in
@require_safe
def by_hand_page(request: HttpRequest, pk: int) -> HttpResponse:
    """Everything a person may do on an item in the department's stead."""
    return _desk(request, _item(request, pk))


def _desk(request: HttpRequest, item: Item, mail: Mapping[str, str] | None = None) -> HttpResponse:
    """The page; ``mail`` is what was typed and refused, which must not be lost."""
    access = access_of(request)
    context = {
        "access": access,
        "item": item,
        "mail": mail or {},
        "address": address_of(item),
        "form": uuid4().hex,
        "can_note": may.can_note(item, access),
        "can_reply": may.can_record_reply(item, access),
        "can_mail": may.can_write_mail(item, access),
        "occasions": [(None, _keys(item, None, request)), *_occasions(item, request)],
    }
    return render(request, "runs/by_hand.html", context)


@signed_in
@require_POST
def item_note(request: HttpRequest, pk: int) -> HttpResponse:
    """Write down a note, or what was said in a call."""
    item = _item(request, pk)
    user = require(request, item.department_id, Role.REVIEWER)
    text, channel = request.POST.get("text", "")[:MAX_TEXT].strip(), request.POST.get("channel", by_hand.NOTE)
    done = by_hand.add_note(item=item, user=user, text=text, channel=channel)
    said = "Written down. Agents are given it the next time they work on this."
    return answer(request, said if done else done.reason, changed=done.ok, url=_page(item))


@signed_in
@require_POST
def item_reply(request: HttpRequest, pk: int) -> HttpResponse:
    """Enter what the item's person has answered elsewhere."""
    item = _item(request, pk)
    user = require(request, item.department_id, Role.OPERATOR)
    at, problem = read_moment(request.POST.get("at", ""), item.department)
    if problem:
        return answer(request, problem, changed=False, url=_page(item))
    done = by_hand.enter_reply(
        item=item,
        user=user,
        body=request.POST.get("body", "")[:MAX_TEXT].strip(),
        subject=request.POST.get("subject", "").strip()[:500],
        address=request.POST.get("address", "").strip()[:320],
        at=at,
        form=request.POST.get("form", "")[:64] or uuid4().hex,
    )
    said = "Recorded. It is read when the department works on this."
    return answer(request, said if done else done.reason, changed=done.ok, url=_page(item))


@signed_in
@require_POST
def item_mail(request: HttpRequest, pk: int) -> HttpResponse:
    """Write to the item's person."""
    item = _item(request, pk)
    user = require(request, item.department_id, Role.OPERATOR)
    subject, body = request.POST.get("subject", "")[:500], request.POST.get("body", "")[:MAX_TEXT]
    done = by_hand.write_mail(item=item, user=user, subject=subject, body=body, to=request.POST.get("to"))
    if not done and not is_htmx(request):
        messages.warning(request, done.reason)
        return _desk(request, item, {"subject": subject, "body": body})
    said = "The mail is in the outbox. It leaves when its time to be taken back is over."
    return answer(request, said if done else done.reason, changed=done.ok, url=_page(item))


@signed_in
@require_safe
def output_new(request: HttpRequest, pk: int) -> HttpResponse:
    """The form to enter an output: ``?key=`` and, for an occasion, ``&trigger=``."""
    item = _item(request, pk)
    user = require(request, item.department_id, Role.OPERATOR)
    key, trigger = request.GET.get("key", ""), _trigger(item, request.GET.get("trigger", ""))
    current = item.outputs.filter(key=key, trigger=trigger, is_current=True).first()
    values = current.payload if current else {REASONING: f"Written by {user}."}
    return _form(request, item, key, trigger, current, values)


@signed_in
@require_POST
def output_write(request: HttpRequest, pk: int) -> HttpResponse:
    """Enter or edit an output; a form that does not fit comes back with what is wrong beside each field."""
    item = _item(request, pk)
    user = require(request, item.department_id, Role.OPERATOR)
    key, trigger = request.POST.get("key", ""), _trigger(item, request.POST.get("trigger", ""))
    seen = read_number(request.POST.get("seen", ""))
    schema = _schema(item, key, trigger)
    payload = read_payload(schema, request.POST)
    try:
        done, output = by_hand.write_output(
            item=item,
            user=user,
            key=key,
            trigger=trigger,
            payload=payload,
            seen=seen,
            reason=request.POST.get("reason", "").strip(),
        )
    except ValidationError as error:
        current = Output.objects.filter(item=item, pk=seen or 0).first()
        return _form(request, item, key, trigger, current, payload, errors_by_field(error))
    if output is None:
        return answer(request, done.reason, changed=False, url=item.get_absolute_url())
    text = f"{capfirst(in_words(key))} {output.number} is yours. Agents use it and do not overwrite it."
    return answer(request, text, changed=True, url=f"{item.get_absolute_url()}#output-{output.pk}")


@signed_in
@require_safe
def output_edit(request: HttpRequest, pk: int) -> HttpResponse:
    """The form to write an output anew: that of its key and occasion."""
    rows = Output.objects.select_related("item__department", "trigger")
    output = get_visible(request, rows, path="item__department_id", pk=pk)
    require(request, output.item.department_id, Role.OPERATOR)
    item, key, trigger = output.item, output.key, output.trigger
    current = item.outputs.filter(key=key, trigger=trigger, is_current=True).first()
    return _form(request, item, key, trigger, current, (current or output).payload)


@signed_in
@require_safe
def output_history(request: HttpRequest, pk: int) -> HttpResponse:
    """An output beside the one before it, field by field, and all versions of its key for its occasion."""
    rows = Output.objects.select_related("item__department", "replaces", "author", "agent_run__agent")
    output = get_visible(request, rows, path="item__department_id", pk=pk)
    same = rows.filter(item=output.item_id, key=output.key, trigger=output.trigger_id)
    versions = list(same.order_by("-number", "-pk")[:VERSIONS])
    earlier = [version for version in versions if version.number < output.number]
    before = output.replaces or (earlier[0] if earlier else None)
    changes = [
        change for change in read_changes(before.payload if before else {}, output.payload) if not change.is_same
    ]
    context = {
        "access": access_of(request),
        "output": output,
        "before": before,
        "changes": [change for change in changes if not change.is_same],
        "versions": versions,
    }
    return render(request, "runs/output_history.html", context)


@signed_in
@require_POST
def item_tags(request: HttpRequest, pk: int) -> HttpResponse:
    """Give the item tags (``add``, with commas between), take tags away (``remove``, once for each), or both."""
    item = _item(request, pk)
    user = require(request, item.department_id, Role.OPERATOR)
    add, remove = read_tags(request.POST.get("add", "")[:2_000]), request.POST.getlist("remove")
    if not add and not remove:
        return answer(request, "Write a tag first.", changed=False, url=item.get_absolute_url())
    done = change_tags(item=item, user=user, add=add, remove=remove)
    said = "The tags are changed. Rules that ask for them are tried again."
    return answer(request, said if done else done.reason, changed=done.ok, url=item.get_absolute_url())


def _form(
    request: HttpRequest,
    item: Item,
    key: str,
    trigger: Trigger | None,
    current: Output | None,
    values: Mapping[str, Any],
    errors: Mapping[str, list[str]] | None = None,
) -> HttpResponse:
    schema = _schema(item, key, trigger)
    context = {
        "access": access_of(request),
        "item": item,
        "key": key,
        "title": in_words(key),
        "trigger": trigger,
        "current": current,
        "allowed": may.can_inject(item, key, trigger, access_of(request)),
        "inputs": build_inputs(schema, values, errors),
        "errors": (errors or {}).get("", []),
        "is_wrong": bool(errors),
    }
    return render(request, "runs/output_form.html", context)


def _item(request: HttpRequest, pk: int) -> Item:
    rows = Item.objects.select_related("department", "automation_by")
    return get_visible(request, rows, pk=pk)


def _page(item: Item) -> str:
    return reverse("runs:by_hand", args=[item.pk])


def _trigger(item: Item, number: str) -> Trigger | None:
    """The occasion that is meant; 404 if it is none of the item's."""
    if not number:
        return None
    found = item.triggers.filter(pk=read_number(number) or 0).first()
    if found is None:
        raise Http404("There is no such occasion.")
    return found


def _schema(item: Item, key: str, trigger: Trigger | None) -> type[BaseModel]:
    """The schema of whoever writes the key for this occasion; 404 if nobody does."""
    agent = item.department.spec.writer(key, trigger.kind if trigger else ITEM)
    if agent is None:
        raise Http404("No agent writes this for such an occasion.")
    return agent.schema


def _keys(item: Item, trigger: Trigger | None, request: HttpRequest) -> list[dict[str, Any]]:
    """Every key that may be entered for an occasion, with what is there now."""
    occasion = trigger.kind if trigger else ITEM
    current = {output.key: output for output in item.outputs.filter(trigger=trigger, is_current=True)}
    have_left = may.keys_that_left(item, trigger) if current else ()
    specs = [
        agent
        for agent in item.department.spec.agents
        if (occasion in agent.serves if agent.serves else trigger is None or agent.scope == "occasion")
    ]
    return [
        {
            "key": agent.writes,
            "title": capfirst(in_words(agent.writes)),
            "current": current.get(agent.writes),
            "allowed": may.can_inject(item, agent.writes, trigger, access_of(request), have_left=have_left),
        }
        for agent in specs
    ]


def _occasions(item: Item, request: HttpRequest) -> list[tuple[Trigger, list[dict[str, Any]]]]:
    """The latest occasions for which something may be written by hand."""
    kinds = {kind for agent in item.department.spec.agents for kind in agent.serves if kind != ITEM}
    rows = item.triggers.filter(kind__in=kinds).order_by("-pk")[:TRIGGERS_SHOWN]
    return [(trigger, _keys(item, trigger, request)) for trigger in rows]
