from __future__ import annotations

import asyncio
import json
import time
from argparse import ArgumentParser
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone
from django_q.models import OrmQ

from agents.llm import ModelClient, ModelReply, ModelRequest
from agents.models import Department
from runs.database import now as database_now
from runs.models import AgentRun, Item, ShiftSlot
from runs.staff import load_staff

STALE = timedelta(seconds=30)
MAX_CLOCK_DIFFERENCE = timedelta(seconds=5)
Finding = tuple[str, bool, str]
"""What was looked at, whether it is well, and a sentence."""


class Command(BaseCommand):
    """Looks at everything the installation needs. The exit code says healthy (0) or not (1)."""

    help = "Say whether this installation is healthy; --live makes one small real call per agent."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--live", action="store_true", help="one small real call per agent: it costs money")
        parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")

    def handle(self, *args: Any, **options: Any) -> None:
        findings: list[Finding] = []
        for look in (_database, _clock, _departments, _queue, _shifts, _oldest_due):
            findings.append(_guarded(look))
            if look is _database and not findings[0][1]:
                break
        else:
            findings += asyncio.run(_model_endpoint())
            if options["live"]:
                findings += _live_calls()
        healthy = all(ok for _, ok, _ in findings)
        if options["json"]:
            rows = [{"check": name, "ok": ok, "text": text} for name, ok, text in findings]
            self.stdout.write(json.dumps({"healthy": healthy, "checks": rows}))
        else:
            for name, ok, text in findings:
                self.stdout.write(f"{'ok ' if ok else 'BAD'} {name}: {text}")
        if not healthy:
            raise SystemExit(1)


def _guarded(look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except Exception as error:
        return look.__name__.strip("_").replace("_", " "), False, f"{type(error).__name__}: {error}"


def _database() -> Finding:
    executor = MigrationExecutor(connection)
    missing = len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    if missing:
        return "database", False, f"{missing} migrations are missing. Run `python manage.py migrate`."
    return "database", True, f"{connection.vendor} answers; all migrations are there."


def _clock() -> Finding:
    difference = abs(database_now() - timezone.now())
    if difference > MAX_CLOCK_DIFFERENCE:
        return (
            "clock",
            False,
            f"This machine and the database differ by {difference.total_seconds():.0f} s. Set the time.",
        )
    return "clock", True, "this machine and the database agree."


def _departments() -> Finding:
    names = list(Department.objects.values_list("slug", flat=True))
    stopped = list(Department.objects.exclude(stopped_by_error="").values_list("slug", "stopped_by_error"))
    if not names:
        return "departments", False, "there is none. Run `python manage.py sync_departments`."
    if stopped:
        return "departments", False, "; ".join(f"{slug} stands still: {why}" for slug, why in stopped)
    return "departments", True, ", ".join(names)


def _queue() -> Finding:
    if "orm" not in settings.Q_CLUSTER:
        return "queue", True, "Redis is the broker."
    waiting = OrmQ.objects.filter(lock__lt=timezone.now() - STALE).order_by("lock").first()
    if waiting is not None:
        return (
            "queue",
            False,
            f"a task has waited since {waiting.lock:%H:%M:%S} UTC. Start `python manage.py worker`.",
        )
    return "queue", True, "nothing waits too long."


def _shifts() -> Finding:
    now = database_now()
    alive = ShiftSlot.objects.filter(lease_expires_at__gt=now, started_at__isnull=False)
    workers = ", ".join(sorted({slot.worker for slot in alive}))
    if len(alive) < settings.SHIFTS:
        return (
            "shifts",
            False,
            f"{len(alive)} of {settings.SHIFTS} are alive. Start `python manage.py worker`.",
        )
    return "shifts", True, f"{len(alive)} alive on {workers}."


def _oldest_due() -> Finding:
    now = database_now()
    late = now - STALE
    item = (
        Item.objects.filter(route_due_at__lt=late, automation=Item.Automation.ACTIVE).order_by("route_due_at").first()
    )
    if item is not None:
        return (
            "due work",
            False,
            f"item {item.pk} has waited for a decision since {item.route_due_at:%H:%M:%S} UTC.",
        )
    lost = AgentRun.objects.filter(status=AgentRun.Status.RUNNING, lease_expires_at__lt=late).count()
    if lost:
        return "due work", False, f"{lost} agent runs are lost and nobody recovers them."
    return "due work", True, "nothing waits too long."


async def _model_endpoint() -> list[Finding]:
    """Whether the endpoint answers at all; what it thinks of the key is asked by ``--live``."""
    client = ModelClient(settings.ANTHROPIC_BASE_URL)
    try:
        answer = await client.reach()
    finally:
        await client.close()
    return [("model endpoint", answer is None, answer or f"{settings.ANTHROPIC_BASE_URL} answers.")]


def _live_calls() -> list[Finding]:
    """One small real call per agent: key, model, schema, price."""
    staff = load_staff()
    requests = []
    for desk in staff.desks.values():
        for agent in desk.agents.values():
            params = {
                "model": agent.model,
                "max_tokens": 1_024,
                "messages": [{"role": "user", "content": "Answer with the single word: ready."}],
            }
            requests.append(
                (
                    f"{desk.department.slug}/{agent.slug}",
                    ModelRequest(uuid4(), agent.slug, desk.department.api_key_env, params, 60.0),
                )
            )
    findings = []
    for (name, request), (reply, seconds) in zip(requests, asyncio.run(_call_all(requests)), strict=True):
        model = request.params["model"]
        price = staff.prices.price_for(model, database_now().date(), 1) if model in staff.prices.models else None
        if reply.cause:
            findings.append((name, False, f"{model}: {reply.error}"))
        elif price is None:
            findings.append((name, False, f"{model} answers, but has no price. Enter one under Prices."))
        else:
            findings.append((name, True, f"{model} answered in {seconds:.1f} s."))
    return findings


async def _call_all(requests: list[tuple[str, ModelRequest]]) -> list[tuple[ModelReply, float]]:
    client = ModelClient(settings.ANTHROPIC_BASE_URL)
    answers = []
    try:
        for _, request in requests:
            began = time.monotonic()
            answers.append((await client.call(request), time.monotonic() - began))
    finally:
        await client.close()
    return answers
