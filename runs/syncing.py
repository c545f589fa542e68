"""The one way from the registry to rows: departments with agents, SOULs and rules, and the shipped prices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction

from agents.models import Department
from agents.pricing import PriceSync, UnknownPrice, load_price_book, sync_prices
from agents.spec import DepartmentSpec, kinds
from agents.syncing import Difference, SyncReport, sync_team
from runs.database import now
from runs.facts import agent_view, rule_view
from runs.models import Channel, RiskRule, Rule
from runs.rules import check_configuration


@dataclass(slots=True)
class FullReport:
    """What a sync of the whole installation found and did."""

    departments: list[SyncReport] = field(default_factory=list)
    prices: PriceSync = field(default_factory=lambda: PriceSync((), ()))

    @property
    def created(self) -> list[str]:
        """Everything that was missing, one line each."""
        lines = [f"price {price}" for price in self.prices.created]
        return lines + [f"{d.department}: {line}" for d in self.departments for line in d.created]

    @property
    def problems(self) -> list[str]:
        """Everything that will not work as it stands, one sentence each."""
        return [f"{d.department}: {line}" for d in self.departments for line in d.problems]

    @property
    def differences(self) -> list[Difference]:
        """Everything an administrator has made otherwise than the code declares it."""
        prices = [Difference(f"price {d.price}", d.field, d.in_code, d.in_database) for d in self.prices.differences]
        theirs = [
            Difference(f"{report.department}: {d.what}", d.field, d.in_code, d.in_database)
            for report in self.departments
            for d in report.differences
        ]
        return prices + theirs


def sync_department(spec: DepartmentSpec, *, slug: str | None = None, name: str | None = None) -> SyncReport:
    """Create what one department lacks, and report what differs.

    One transaction. Without a slug it is the first of its kind, which has the kind as its slug. ValueError if
    the slug belongs to another kind, SoulError if a shipped SOUL cannot be read.
    """
    with transaction.atomic():
        department, report = sync_team(spec, slug=slug or spec.kind, name=name or spec.label)
        _sync_rules(spec, department, report)
        _sync_risk_rules(spec, department, report)
        _sync_channel(department, report)
        report.problems += configuration_problems(department)
    return report


def sync_everything(*, dry: bool = False) -> FullReport:
    """Prices, and every department of every installed kind; a kind that has none gets its first.

    ``dry`` rolls everything back: the report then says what is missing.
    """
    report = FullReport()
    with transaction.atomic():
        report.prices = sync_prices()
        for spec in kinds():
            slugs = list(Department.objects.filter(kind=spec.kind).order_by("pk").values_list("slug", flat=True))
            report.departments += [sync_department(spec, slug=slug) for slug in slugs or [spec.kind]]
        transaction.set_rollback(dry)
    return report


def _sync_rules(spec: DepartmentSpec, department: Department, report: SyncReport) -> None:
    present = {rule.name: rule for rule in department.rules.all()}
    missing = []
    for position, declared in enumerate(spec.rules, start=1):
        in_code: dict[str, Any] = {
            "position": position,
            "when": declared.when,
            "want": list(declared.want),
            "is_enabled": True,
        }
        rule = present.get(declared.name)
        if rule is None:
            missing.append(Rule(department=department, name=declared.name, **in_code))
            report.created.append(f"rule “{declared.name}”")
            continue
        report.differences += [
            Difference(f"rule “{rule.name}”", column, value, getattr(rule, column))
            for column, value in in_code.items()
            if getattr(rule, column) != value
        ]
    Rule.objects.bulk_create(missing)


def _sync_risk_rules(spec: DepartmentSpec, department: Department, report: SyncReport) -> None:
    present = {rule.name: rule for rule in department.risk_rules.all()}
    for position, declared in enumerate(spec.risk_rules, start=1):
        in_code: dict[str, Any] = {"position": position, "when": declared.when, "risk": declared.risk}
        rule = present.get(declared.name)
        if rule is None:
            RiskRule.objects.create(department=department, name=declared.name, **in_code)
            report.created.append(f"risk rule “{declared.name}”")
            continue
        report.differences += [
            Difference(f"risk rule “{rule.name}”", column, value, getattr(rule, column))
            for column, value in {**in_code, "is_enabled": True}.items()
            if getattr(rule, column) != value
        ]


def _sync_channel(department: Department, report: SyncReport) -> None:
    """The way out for mails: switched off, because it has no sender yet."""
    _, is_new = Channel.objects.get_or_create(department=department, kind="email", defaults={"is_enabled": False})
    if is_new:
        report.created.append("channel email (off until an administrator enters its sender)")


def configuration_problems(department: Department) -> list[str]:
    """What will not work in a department as it stands: rules, agents, inputs, models. One sentence each."""
    agents = [agent_view(agent) for agent in department.agents.order_by("pk")]
    rules = [rule_view(rule) for rule in department.rules.filter(is_enabled=True)]
    written = {agent.writes for agent in agents}
    unwritten = [
        f"The agent {agent.slug} uses “{key}”, which no agent writes. It works without."
        for agent in agents
        for key in agent.uses
        if key not in written
    ]
    return [*check_configuration(rules, agents), *unwritten, *_unpriced(department)]


def _unpriced(department: Department) -> Iterable[str]:
    book, today = load_price_book(), now().date()
    for agent in department.agents.filter(is_enabled=True):
        for model in (agent.model, *agent.fallback_models):
            try:
                book.price_for(model, today)
            except UnknownPrice as error:
                yield f"{agent.slug}: {error}"
