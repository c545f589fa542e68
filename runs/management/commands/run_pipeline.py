from __future__ import annotations

import json
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import Count, Q, Sum

from agents.models import Department
from runs.database import now as database_now
from runs.database import snapshot
from runs.models import AgentRun, Item, ModelCall
from runs.money import dollars, in_units
from runs.triggers import request_run

LOOK_SECONDS = 0.25


class Command(BaseCommand):
    """Marks items due and, with ``--wait``, reports when nothing is due or running any more."""

    help = "Mark leads due; with --wait, come back when nothing is due or running."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--department", default="sales", metavar="SLUG")
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("--lead", type=int, nargs="+", metavar="ID", help="these items")
        which.add_argument("--all", action="store_true", help="every item of the department")
        parser.add_argument("--wait", type=float, metavar="SECONDS", help="how long to wait at the most")
        parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")

    def handle(self, *args: Any, **options: Any) -> None:
        department = Department.objects.filter(slug=options["department"]).first()
        if department is None:
            known = ", ".join(Department.objects.values_list("slug", flat=True)) or "none; run sync_departments first"
            raise CommandError(f"There is no department {options['department']!r}. There are: {known}.")
        items = Item.objects.filter(department=department)
        if options["lead"]:
            known_ids = set(items.filter(pk__in=options["lead"]).values_list("pk", flat=True))
            if unknown := sorted(set(options["lead"]) - known_ids):
                raise CommandError(f"The department {department.slug} has no item {', '.join(map(str, unknown))}.")
            items = items.filter(pk__in=known_ids)
        started, began = time.monotonic(), database_now()
        marked = request_run(items=items.values_list("pk", flat=True), reason="run_pipeline")
        is_settled = None
        if options["wait"] is not None:
            is_settled = self._wait(department, started + options["wait"])
        self._report(department, marked, is_settled, time.monotonic() - started, began, as_json=options["json"])
        if is_settled is False:
            raise SystemExit(1)

    def _wait(self, department: Department, until: float) -> bool:
        """True when nothing is due, queued or running; False when the time is up first."""
        while time.monotonic() < until:
            # Of one state: between two looks a run may end and make its item due, or a due item get its runs.
            with snapshot():
                is_active = _is_active(department)
            if not is_active:
                return True
            time.sleep(LOOK_SECONDS)
        return False

    def _report(
        self,
        department: Department,
        marked: int,
        is_settled: bool | None,
        seconds: float,
        since: Any,
        *,
        as_json: bool,
    ) -> None:
        calls = ModelCall.objects.filter(department=department, started_at__gte=since)
        used = calls.aggregate(
            calls=Count("pk"),
            input_tokens=Sum("input_tokens", default=0),
            output_tokens=Sum("output_tokens", default=0),
            units=Sum(in_units("cost_usd"), default=0),
            failed=Count("pk", filter=~Q(cause="")),
        )
        cost = dollars(int(used["units"]))
        report = {
            "department": department.slug,
            "marked": marked,
            "settled": is_settled,
            "seconds": round(seconds, 1),
            "leads": _counts(Item.objects.filter(department=department)),
            "agent_runs": _counts(AgentRun.objects.filter(department=department)),
            "calls": used["calls"],
            "failed_calls": used["failed"],
            "input_tokens": used["input_tokens"],
            "output_tokens": used["output_tokens"],
            "cost_usd": f"{cost:.8f}",
        }
        if as_json:
            self.stdout.write(json.dumps(report))
            return
        self.stdout.write(f"{marked} leads marked due in {department.name}.")
        if is_settled is None:
            return
        for name in ("leads", "agent_runs"):
            counts = ", ".join(f"{count} {status}" for status, count in report[name].items())
            self.stdout.write(f"{name.replace('_', ' ').capitalize()}: {counts or 'none'}.")
        self.stdout.write(
            f"{used['calls']} calls, {used['input_tokens']:,} tokens in, {used['output_tokens']:,} out, "
            f"{cost:.4f} USD, {seconds:.1f} s."
        )
        if not is_settled:
            self.stderr.write("The time is up and work is left. Is a worker running? `manage.py doctor` tells.")


def _is_active(department: Department) -> bool:
    # What nobody will take up before a person says so is not waited for; what is under way ends all the same.
    items = Item.objects.filter(
        department=department,
        department__state__in=Department.WORKING,
        automation=Item.Automation.ACTIVE,
    )
    runs = AgentRun.objects.filter(department=department)
    return (
        items.filter(route_due_at__lte=database_now()).exists()
        or runs.filter(status=AgentRun.Status.QUEUED, item__in=items, agent__is_enabled=True).exists()
        or runs.filter(status=AgentRun.Status.RUNNING).exists()
    )


def _counts(rows: Any) -> dict[str, int]:
    return dict(rows.order_by().values("status").annotate(count=Count("pk")).values_list("status", "count"))
