"""``python -m tests.bench.filling``: a large installation in PostgreSQL, by statements of its own, in minutes.

Two sales departments with leads that were worked over 400 days: every lead came in and was qualified, six in ten were
researched, written to, followed up twice and answered. Ids rise with time, as in life. The planner's statistics are
fresh afterwards, and the sums that the product keeps beside its rows are those that it would have kept.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import django

django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, models, transaction  # noqa: E402
from django.db.models import Max, Min, Sum  # noqa: E402
from django.test import Client  # noqa: E402
from django.utils import timezone  # noqa: E402

from agents.models import Agent, Budget, BudgetPeriod, Department, Member  # noqa: E402
from agents.pricing import sync_prices  # noqa: E402
from leads.models import ImportJob, Lead  # noqa: E402
from runs.cost_sums import Period, total  # noqa: E402
from runs.costs import break_down  # noqa: E402
from runs.models import (  # noqa: E402
    Action,
    AgentRun,
    Alert,
    BulkAction,
    Channel,
    CostRollup,
    Item,
    ItemCost,
    LogEntry,
    Message,
    ModelCall,
    ModelCallBody,
    OutboxMessage,
    Output,
    PipelineRun,
    Review,
    Suppression,
    Trigger,
)
from tests import factories  # noqa: E402

LEADS, DAYS = 100_000, 400
CALLS_A_RUN, LINES_A_RUN = 5, 5
OPEN_REVIEWS, ANSWERED_REVIEWS, SENDS, ACTIONS = 2_000, 40_000, 20_000, 60_000
ACTIVE = 400
"""So many of the newest pipeline runs, one a lead, are under way."""
LATEST = 80
"""The calls of so many of the newest pipeline runs are not in the sums yet."""
DEPARTMENTS = ("northwind", "halden")
BIG = (
    *(Item, Lead, PipelineRun, AgentRun, Trigger, Output, ModelCall),
    *(ItemCost, LogEntry, Message, OutboxMessage, Review),
)
Columns = dict[str, str]

# What is done for a lead, as (kind of work, step, agent): a cold one is only read and scored.
STEPS = [
    *((kind, n, slug) for kind in ("cold", "warm") for n, slug in enumerate(("intake", "qualifier"), 1)),
    *(("warm", n, s) for n, s in enumerate(("researcher", "strategist", "writer", "fact_checker", "formatter"), 3)),
    *(("follow_up", n, slug) for n, slug in enumerate(("followup_writer", "fact_checker", "formatter"), 1)),
    *(("reply", n, slug) for n, slug in enumerate(("reply_handler", "fact_checker", "formatter"), 1)),
]
_STATUS = """CASE WHEN n > {newest} AND NOT warm THEN 'new' WHEN n > {newest} THEN 'drafted'
    WHEN NOT warm AND mod(n, 10) < 9 THEN 'nurturing' WHEN NOT warm THEN 'rejected'
    WHEN mod(n, 97) < 50 THEN 'contacted' WHEN mod(n, 97) < 60 THEN 'answered' WHEN mod(n, 97) < 66 THEN 'replied'
    WHEN mod(n, 97) < 74 THEN 'meeting' WHEN mod(n, 97) < 89 THEN 'lost' WHEN mod(n, 97) < 92 THEN 'won'
    ELSE 'opted_out' END"""
_PLAN = """
CREATE TEMP TABLE plan_lead AS
SELECT n, mod(n, 10) < 6 AS warm, CASE WHEN mod(n, 5) = 0 THEN {second} ELSE {first} END AS department_id,
       now() - interval '1 day' * ({days} * (1 - n::float / {leads})) AS at FROM generate_series(1, {leads}) n;
CREATE TEMP TABLE plan_work AS
SELECT row_number() OVER (ORDER BY at, n) AS id, * FROM (
    SELECT n, department_id, warm, at, CASE WHEN warm THEN 'warm' ELSE 'cold' END AS kind FROM plan_lead
    UNION ALL
    SELECT n, department_id, warm, at + interval '1 day' * (days + mod(n, 7)), kind FROM plan_lead
    CROSS JOIN (VALUES ('follow_up', 4), ('follow_up', 12), ('reply', 20)) AS later (kind, days)
    WHERE warm AND n <= {leads} - {newest}
) w;
UPDATE plan_work SET at = now() - interval '1 second' * (10 + mod(n, 900)) WHERE at > now();
ALTER TABLE plan_work ADD is_new boolean DEFAULT false;
UPDATE plan_work SET is_new = true
WHERE id IN (SELECT max(id) FROM plan_work GROUP BY n ORDER BY 1 DESC LIMIT {active});
CREATE TEMP TABLE plan_step (kind text, step int, slug text);
INSERT INTO plan_step VALUES {steps};
CREATE TEMP TABLE plan_run AS
SELECT row_number() OVER (ORDER BY w.id, s.step) AS id, w.id AS work, w.n, w.department_id, w.kind, w.warm, s.step,
       a.id AS agent_id, a.model, a.writes, p.id AS soul_id, w.at + interval '20 second' * s.step AS at,
       s.step = max(s.step) OVER (PARTITION BY w.id) AS is_last, w.is_new
FROM plan_work w JOIN plan_step s USING (kind)
JOIN agents_agent a ON a.department_id = w.department_id AND a.slug = s.slug
JOIN agents_soul p ON p.agent_id = a.id AND p.status = 'published';
CREATE INDEX ON plan_run (id);
ANALYZE plan_lead; ANALYZE plan_work; ANALYZE plan_run
"""
# A hundredth failed. Of the newest work the last step is under way or waits for its turn.
_RUN_STATUS = """CASE WHEN is_new AND is_last AND mod(id, 4) = 0 THEN 'running' WHEN is_new AND is_last THEN 'queued'
    WHEN mod(id, 100) = 0 THEN 'failed' ELSE 'done' END"""


@dataclass(frozen=True, slots=True)
class Size:
    """How large it becomes. ``newest`` leads wait for approval or were just qualified."""

    leads: int

    @property
    def newest(self) -> int:
        """A fortieth."""
        return max(self.leads // 40, 10)


def fill(leads: int) -> dict[str, Any]:
    """Make everything in an empty, migrated database; how many rows of what there are."""
    size, began = Size(leads), time.monotonic()
    sync_prices()
    departments = [factories.make_department("sales", slug) for slug in DEPARTMENTS]
    with transaction.atomic(), connection.cursor() as cursor:
        # Referential integrity is ours to keep: a trigger for each of ten million rows takes most of the time.
        cursor.execute("SET LOCAL session_replication_role = replica")
        indexes = _drop_indexes()
        _plan(size, departments)
        for make in (_items, _runs, _calls, _conversation, _desk):
            make(size)
            print(f"{time.monotonic() - began:4.0f} s {make.__name__.strip('_')}", file=sys.stderr, flush=True)
        for definition in indexes:
            cursor.execute(definition)
        _advance_ids()
    print(f"{time.monotonic() - began:4.0f} s indexes", file=sys.stderr, flush=True)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    cursor_counts = {model._meta.verbose_name_plural: model._default_manager.count() for model in (*BIG, Action)}
    return {"seconds": round(time.monotonic() - began), **{str(name): n for name, n in cursor_counts.items()}}


def make_people() -> dict[str, str]:
    """An administrator of everything and an operator of one department; name to session."""
    first = Department.objects.get(slug=DEPARTMENTS[0])
    looker, _ = User.objects.get_or_create(username="looker", defaults={"is_superuser": True, "is_staff": True})
    olga, _ = User.objects.get_or_create(username="olga")
    Member.objects.get_or_create(department=first, user=olga, defaults={"role": Member.Role.OPERATOR})
    found = {}
    for user in (looker, olga):
        client = Client()
        client.force_login(user)
        found[user.username] = client.cookies["sessionid"].value
    return found


def make_singles() -> None:
    """One of what an installation has few of, so that every page has something to show; nothing if it is there."""
    first = Department.objects.get(slug=DEPARTMENTS[0])
    if Budget.objects.filter(department=first).exists():
        return
    now = timezone.now()
    budget = Budget.objects.create(department=first, period=Budget.Period.MONTH, limit_usd=5_000)
    BudgetPeriod.objects.create(
        budget=budget, starts_at=now - timedelta(days=20), ends_at=now + timedelta(days=10), spent_usd=3_100
    )
    incident = Review.objects.create(
        department=first, kind=Review.Kind.INCIDENT, cause="timeout", count=200, ask="200 steps timed out: try again?"
    )
    failed = AgentRun.objects.filter(department=first, status=AgentRun.Status.FAILED).order_by("-pk")[:200]
    AgentRun.objects.filter(pk__in=[run.pk for run in failed]).update(incident=incident)
    BulkAction.objects.create(
        department=first, verb="pause", selection={"status": "new"}, total=500, done=500, status="done", ended_at=now
    )
    ImportJob.objects.create(department=first, source="fair", file_name="fair.csv")
    Suppression.objects.bulk_create(
        Suppression(address=f"gone{number}@example.com", reason="opt_out") for number in range(5_000)
    )
    same = {"department": first, "kind": Alert.Kind.FAILURE, "text": "Steps fail.", "first_at": now, "last_at": now}
    for number in range(3):
        Alert.objects.create(key=f"failure:{number}", **same)


def check_sums() -> dict[str, str]:
    """The sum over all calls, and what the costs page says of the same days."""
    calls = ModelCall.objects.aggregate(usd=Sum("cost_usd"), first=Min("started_at"), last=Max("started_at"))
    period = Period(calls["first"].date(), calls["last"].date())
    page = total(break_down(list(Department.objects.all()), period, "agent"))
    return {"calls_usd": f"{calls['usd']:.8f}", "page_usd": f"{page.usd:.8f}"}


def _insert(model: type[models.Model], columns: Columns, source: str) -> None:
    """Insert what ``source`` selects; columns that are not named get the model's default."""
    names, values, params = [], [], []
    for field in model._meta.concrete_fields:
        column = str(field.column)
        if column in columns:
            value = columns[column]
        elif field.primary_key and not isinstance(field, models.OneToOneField):
            continue
        elif getattr(field, "auto_now", False) or getattr(field, "auto_now_add", False):
            value = "now()"
        else:
            value = "%s"
            params.append(field.get_db_prep_save(field.get_default(), connection))
        names.append(column)
        values.append(value)
    unknown = columns.keys() - set(names)
    assert not unknown, f"{model.__name__} has no {unknown}"
    with connection.cursor() as cursor:
        sql = f"INSERT INTO {model._meta.db_table} ({', '.join(names)}) SELECT {', '.join(values)} {source}"
        cursor.execute(sql, params or None)


def _plan(size: Size, departments: Sequence[Department]) -> None:
    first, second = (department.pk for department in departments)
    steps = ", ".join(f"('{kind}', {step}, '{slug}')" for kind, step, slug in STEPS)
    values = {"first": first, "second": second, "days": DAYS, "leads": size.leads, "newest": size.newest}
    with connection.cursor() as cursor:
        cursor.execute(_PLAN.format(**values, steps=steps, active=ACTIVE))


def _items(size: Size) -> None:
    first = "(ARRAY['Lena','Mara','Jonas','Amal','Pierre','Sofia','Emil','Ines','Tariq','Ruth','Oskar','Yuki','Nadia'])"
    last = "(ARRAY['Weber','Lindqvist','Moreau','Rossi','Novak','Haddad','Olsen','Costa','Brandt','Sato','Keller'])"
    name = f"{first}[1 + mod(n, 13)] || ' ' || {last}[1 + mod(n, 11)]"
    company = "(ARRAY['Halden','Brightwater','Kronos','Lindental','Nordhafen','Tallis','Vega'])[1 + mod(n * 7, 7)]"
    company += " || ' ' || (ARRAY['Maschinen','Foods','Logistics','Furniture','Textil'])[1 + mod(n, 5)] || ' ' || n"
    status = _STATUS.format(newest=size.leads - size.newest)
    _insert(
        Item,
        {
            "id": "n",
            "department_id": "department_id",
            "title": name,
            "status": status,
            "flag": "CASE WHEN mod(n, 331) = 0 THEN 'The Researcher failed: look at it.' ELSE '' END",
            # A follow-up lies in the future for those who have not answered.
            "route_due_at": f"CASE WHEN {status} = 'contacted' THEN now() + interval '1 hour' * (1 + mod(n, 90)) END",
            "automation": "CASE WHEN mod(n, 211) = 0 THEN 'paused' ELSE 'active' END",
            "created_at": "at",
            "changed_at": "at + interval '20 day'",
        },
        "FROM plan_lead ORDER BY n",
    )
    _insert(
        Lead,
        {
            "item_id": "n",
            "department_id": "department_id",
            "name": name,
            "email": "lower(split_part(" + name + ", ' ', 1)) || n || '@example' || mod(n, 900) || '.com'",
            "company": company,
            "title": "(ARRAY['Head of Logistics','Managing Director','Buyer','CFO'])[1 + mod(n, 4)]",
            "website": "'https://example' || mod(n, 900) || '.com'",
            "country": "(ARRAY['Germany','Sweden','France','Norway','Italy'])[1 + mod(n, 5)]",
            "source": "(ARRAY['webform','fair','import','partner'])[1 + mod(n, 4)]",
            "message": "'We ship 1,200 consignments a month. Can you check the invoices? ' || n",
        },
        "FROM plan_lead ORDER BY n",
    )


def _runs(size: Size) -> None:
    _insert(
        PipelineRun,
        {
            "id": "id",
            "item_id": "n",
            "status": "CASE WHEN is_new THEN 'active' WHEN EXISTS (SELECT 1 FROM plan_run r WHERE r.work = "
            "plan_work.id AND mod(r.id, 100) = 0) THEN 'degraded' ELSE 'completed' END",
            "cause": "CASE kind WHEN 'reply' THEN 'reply' WHEN 'follow_up' THEN 'follow-up' ELSE 'created' END",
            "started_at": "at",
            "ended_at": "CASE WHEN is_new THEN NULL ELSE at + interval '150 second' END",
        },
        "FROM plan_work ORDER BY id",
    )
    _insert(
        Trigger,
        {
            "id": "id",
            "item_id": "n",
            "kind": "CASE WHEN kind IN ('warm', 'cold') THEN 'created' ELSE kind END",
            "status": "'handled'",
            "due_at": "at",
            "created_at": "at",
            "settled_at": "at + interval '150 second'",
            "settled_note": "'An output was made for it.'",
        },
        "FROM plan_work ORDER BY id",
    )
    trigger = "CASE WHEN kind IN ('warm', 'cold') THEN NULL ELSE work END"
    _insert(
        AgentRun,
        {
            "id": "id",
            "department_id": "department_id",
            "item_id": "n",
            "agent_id": "agent_id",
            "pipeline_run_id": "work",
            "trigger_id": trigger,
            "soul_id": "soul_id",
            "status": _RUN_STATUS,
            "why": "'Wanted: ' || writes",
            "due_at": "at",
            "attempt": "CASE WHEN mod(id, 100) = 0 THEN 4 ELSE 1 END",
            "failures": "CASE WHEN mod(id, 100) = 0 THEN 4 ELSE 0 END",
            "lease_token": f"CASE WHEN {_RUN_STATUS} = 'running' THEN gen_random_uuid() END",
            "lease_expires_at": f"CASE WHEN {_RUN_STATUS} = 'running' THEN now() + interval '1 day' END",
            "worker": "'host:' || mod(id, 4)",
            "cause": f"CASE WHEN {_RUN_STATUS} = 'failed' THEN 'timeout' ELSE '' END",
            "error": f"CASE WHEN {_RUN_STATUS} = 'failed' THEN 'No answer within 60 s.' ELSE '' END",
            "cost_usd": "0.004 + mod(id, 997) * 0.000003",
            "queued_at": "at",
            "started_at": "at + interval '1 second'",
            "ended_at": f"CASE WHEN {_RUN_STATUS} IN ('queued', 'running') THEN NULL "
            "ELSE at + interval '1 second' * (4 + mod(id, 15)) END",
        },
        "FROM plan_run ORDER BY id",
    )
    payloads = {key: json.dumps(payload) for key, payload in factories.PAYLOADS.items()}
    whens = " ".join(f"WHEN '{key}' THEN '{_quoted(payload)}'::jsonb" for key, payload in payloads.items())
    _insert(
        Output,
        {
            "id": "id",
            "item_id": "n",
            "key": "writes",
            "trigger_id": trigger,
            "payload": f"CASE writes {whens} END || jsonb_build_object('subject', 'Your freight invoices ' || n)",
            "facets": "CASE writes WHEN 'qualification' THEN jsonb_build_object('tier', CASE WHEN NOT warm THEN 'Cold' "
            "WHEN mod(n, 3) = 0 THEN 'Hot' ELSE 'Warm' END, 'score', 20 + mod(n, 80)) ELSE '{}'::jsonb END",
            "schema_version": "'1'",
            "agent_run_id": "id",
            "verdict": f"CASE WHEN writes = 'email' AND n <= {size.leads - size.newest} "
            "THEN 'approved' ELSE 'none' END",
            "created_at": "at + interval '18 second'",
        },
        f"FROM plan_run WHERE {_RUN_STATUS} = 'done' ORDER BY id",
    )


def _calls(size: Size) -> None:
    """Calls, log lines and the sums over the calls."""
    cost = "(mod(r.id * 5 + k, 9973) * 0.0000003 + 0.0004)"
    newest = f"r.work > (SELECT max(id) FROM plan_work) - {LATEST}"
    _insert(
        ModelCall,
        {
            "id": f"(r.id - 1) * {CALLS_A_RUN} + k",
            "department_id": "r.department_id",
            "item_id": "r.n",
            "agent_id": "r.agent_id",
            "agent_run_id": "r.id",
            "soul_id": "r.soul_id",
            "call_id": "gen_random_uuid()",
            "attempt": "1",
            "number": "k",
            "worker": "'host:' || mod(r.id, 4)",
            "status": "'finished'",
            "model_asked": "r.model",
            "model_used": "r.model",
            "input_tokens": "900 + mod(r.id, 700)",
            "cache_read_tokens": "mod(r.id, 3) * 400",
            "output_tokens": "200 + mod(r.id, 90)",
            "cost_usd": cost,
            "cause": "CASE WHEN mod(r.id, 100) = 0 THEN 'timeout' ELSE '' END",
            "stop_reason": "'end_turn'",
            "started_at": "r.at + interval '1 second' * k",
            "ended_at": "r.at + interval '1 second' * (k + 1)",
            "latency_ms": "400 + mod(r.id * 31 + k, 3000)",
            "first_token_ms": "150 + mod(r.id, 300)",
            "rolled": f"CASE WHEN {newest} THEN '' ELSE 'done' END",
        },
        f"FROM plan_run r CROSS JOIN generate_series(1, {CALLS_A_RUN}) k ORDER BY r.id, k",
    )
    _insert(
        ModelCallBody,
        {
            "call_id": f"(r.id - 1) * {CALLS_A_RUN} + k",
            "request": """jsonb_build_object('model', r.model, 'max_tokens', 3000, 'system', '[]'::jsonb, 'messages',
                '[{"role": "user", "content": "The lead: ..."}]'::jsonb)""",
            "response": """'{"type": "message", "stop_reason": "end_turn", "content": [{"type": "text", "text":
                "{}"}]}'::jsonb""",
        },
        f"FROM plan_run r CROSS JOIN generate_series(1, {CALLS_A_RUN}) k WHERE mod(r.work, 40) = 0 ORDER BY r.id, k",
    )
    _insert(
        LogEntry,
        {
            "id": f"(r.id - 1) * {LINES_A_RUN} + k",
            "department_id": "r.department_id",
            "item_id": "r.n",
            "pipeline_run_id": "r.work",
            "agent_run_id": "r.id",
            "level": "CASE WHEN mod(r.id, 100) = 0 AND k = 5 THEN 'error' WHEN mod(r.id, 50) = 1 AND k = 3 THEN "
            "'warning' ELSE 'info' END",
            "kind": "CASE WHEN k = 1 THEN 'decision' WHEN k = 2 THEN 'started' WHEN k = 3 THEN 'waiting' "
            "WHEN k = 4 THEN 'retry' WHEN mod(r.id, 100) = 0 THEN 'failed' ELSE 'output' END",
            "text": "'Wanted: ' || r.writes || ', because the rule for new leads holds.'",
            "at": "r.at + interval '2 second' * k",
        },
        f"FROM plan_run r CROSS JOIN generate_series(1, {LINES_A_RUN}) k ORDER BY r.id, k",
    )
    _sums()


def _sums() -> None:
    day, waste = "(started_at AT TIME ZONE 'UTC')::date", "(cause <> '')"
    units = "(sum(cost_usd) * 100000000)::bigint"
    key = f"department_id || ':' || {day} || ':' || agent_id || ':' || soul_id || ':' || {waste}::int || '0:' ||"
    tokens = ("input_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "cache_read_tokens", "output_tokens")
    columns = {name: name for name in ("department_id", "agent_id", "soul_id")}
    columns |= {"key": f"{key} model_used", "day": day, "model": "model_used", "is_waste": waste}
    columns |= {"calls": "count(*)", "cost_units": units, **{name: f"sum({name})" for name in tokens}}
    done = f"FROM {ModelCall._meta.db_table} WHERE rolled = 'done' GROUP BY department_id,"
    _insert(CostRollup, {**columns, "is_estimate": "false"}, f"{done} {day}, agent_id, soul_id, {waste}, model_used")
    wasted = f"(coalesce(sum(cost_usd) FILTER (WHERE {waste}), 0) * 100000000)::bigint"
    columns = {"department_id": "department_id", "item_id": "item_id", "day": day, "calls": "count(*)"}
    columns["day_before"] = f"lag({day}) OVER (PARTITION BY item_id ORDER BY {day})"
    _insert(ItemCost, {**columns, "cost_units": units, "waste_units": wasted}, f"{done} item_id, {day} ORDER BY {day}")


def _conversation(size: Size) -> None:
    mails = "r.writes = 'email' AND mod(r.id, 100) <> 0 AND NOT r.is_new"
    _insert(
        Message,
        {
            "item_id": "r.n",
            "direction": "'out'",
            "subject": "'Your freight invoices ' || r.n",
            "body": "'Dear Ms Weber, you ship 1,200 consignments a month.'",
            "address": "'lena' || r.n || '@example.com'",
            "output_id": "r.id",
            "at": "r.at + interval '5 minute'",
        },
        f"FROM plan_run r WHERE {mails} AND r.n <= {size.leads - size.newest} ORDER BY r.id",
    )
    _insert(
        Message,
        {
            "item_id": "n",
            "direction": "'in'",
            "subject": "'Re: Your freight invoices ' || n",
            "body": "'Yes, please.'",
            "trigger_id": "id",
            "at": "at",
        },
        "FROM plan_work WHERE kind = 'reply' ORDER BY id",
    )
    status = "CASE WHEN mod(r.id, 400) = 1 THEN 'unknown' WHEN mod(r.id, 80) = 3 THEN 'failed' WHEN mod(r.id, 50) = 7 "
    status += "THEN 'pending' WHEN mod(r.id, 90) = 11 THEN 'withdrawn' ELSE 'sent' END"
    _insert(
        OutboxMessage,
        {
            "department_id": "department_id",
            "item_id": "n",
            "output_id": "id",
            "key": "n || ':' || kind || ':' || id",
            "purpose": "kind",
            "address": "'lena' || n || '@example.com'",
            "rendered": "jsonb_build_object('subject', 'Your freight invoices ' || n, 'body', 'Dear Ms Weber, ...')",
            "approved_at": "at",
            "release_at": "at",
            "status": status.replace("r.", ""),
            "sent_at": f"CASE WHEN {status.replace('r.', '')} = 'sent' THEN at END",
            "ended_at": f"CASE WHEN {status.replace('r.', '')} IN ('sent', 'failed') THEN at END",
            "created_at": "at",
        },
        f"FROM (SELECT * FROM plan_run r WHERE {mails} AND r.n <= {size.leads - size.newest} ORDER BY id DESC "
        f"LIMIT {SENDS}) r ORDER BY id",
    )
    for department in Department.objects.all():
        Channel.objects.update_or_create(department=department, kind="email", defaults={"settings": {}})


def _desk(size: Size) -> None:
    """Open and answered questions, and what people did."""
    people = [factories.make_user(name) for name in ("anna", "bert", "cleo", "dora", "emil")]
    user = f"(ARRAY{[person.pk for person in people]})[1 + mod(id, 5)]"
    same = {"department_id": "department_id", "item_id": "n"}
    emails = "SELECT * FROM plan_run WHERE writes = 'email' AND mod(id, 100) <> 0 AND NOT is_new"
    drafts = {**same, "output_id": "id", "kind": "'draft'", "ask": "'Send this mail to lead ' || n || '?'"}
    asked = {**drafts, "risk": "1 + mod(id, 3)", "deadline": "now() + interval '1 minute' * mod(id * 17, 2880)"}
    _insert(Review, asked, f"FROM ({emails} AND n > {size.leads - size.newest}) r ORDER BY id")
    failed = {"agent_run_id": "id", "kind": "'failure'", "ask": "'The ' || writes || ' failed: try again?'"}
    due = {"deadline": "now() + interval '1 hour'", "risk": "2"}
    rest = OPEN_REVIEWS - Review.objects.count()
    failures = "FROM (SELECT * FROM plan_run WHERE mod(id, 100) = 0 AND NOT is_new ORDER BY id DESC"
    _insert(Review, {**same, **failed, **due}, f"{failures} LIMIT {max(rest, 50)}) r ORDER BY id")
    answered = {"status": "'answered'", "answered_by_id": user, "answered_at": "at + interval '1 hour'"}
    answer = "(ARRAY['approve','approve','approve_edited','send_back','reject'])[1 + mod(id, 5)]"
    done = f"FROM ({emails} AND n <= {size.leads - size.newest} ORDER BY id DESC LIMIT {ANSWERED_REVIEWS}) r"
    _insert(Review, {**drafts, **answered, "answer": answer, "created_at": "at"}, f"{done} ORDER BY id")
    acts = f"FROM ({emails} ORDER BY id DESC LIMIT {ACTIONS}) r ORDER BY id"
    verb = "(ARRAY['approve','send_back','pause','resume','retry'])[1 + mod(id, 5)]"
    _insert(Action, {**same, "user_id": user, "verb": verb, "target": "'review:' || id", "at": "at"}, acts)


def _quoted(text: str) -> str:
    """Inside single quotes of a statement that has parameters."""
    return text.replace("'", "''").replace("%", "%%")


def _drop_indexes() -> list[str]:
    """Drop what is not a constraint of the large tables; the statements that make it again."""
    tables = [str(model._meta.db_table) for model in BIG]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT i.indexname, i.indexdef FROM pg_indexes i LEFT JOIN pg_constraint c ON c.conname = i.indexname "
            "WHERE i.tablename = ANY(%s) AND i.schemaname = current_schema() AND c.oid IS NULL",
            [tables],
        )
        found = cursor.fetchall()
        for name, _ in found:
            cursor.execute(f'DROP INDEX "{name}"')
    return [definition for _, definition in found]


def _advance_ids() -> None:
    """The sequences go on after the ids that were given."""
    with connection.cursor() as cursor:
        for model in (Item, PipelineRun, AgentRun, Trigger, Output, ModelCall, LogEntry):
            table = model._meta.db_table
            cursor.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))")


def main(arguments: Sequence[str]) -> int:
    """Migrate and fill the database of DATABASE_URL, which must be an empty PostgreSQL one; print what there is."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.filling", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--leads", type=int, default=LEADS)
    options = parser.parse_args(arguments)
    if connection.vendor != "postgresql":
        print("DATABASE_URL must name a PostgreSQL database.")
        return 1
    call_command("migrate", verbosity=0)
    if Agent.objects.exists():
        print("The database is not empty: it stays as it is.")
    else:
        print(json.dumps(fill(options.leads)))
    make_singles()
    print(json.dumps({**check_sums(), "sessions": make_people()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
