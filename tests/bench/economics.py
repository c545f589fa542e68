"""``make economics``: what a lead costs at list prices, beside other choices of models and one all-purpose agent.

The sample leads go through the real pipeline against the simulator. Input tokens are those of the real requests, as
the simulator estimates them from their characters (no tokenizer of a current model is public). What models would
answer is invented by the simulator: answers are priced at their invented length, and thinking at a multiple of it
that is assumed by effort. Nothing here was measured on Claude.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import django

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.bench.settings")
    os.environ.setdefault("ANTHROPIC_API_KEY", "test-key")
    # Only ever opened under the name of the test database, which lies in a folder of its own (main).
    os.environ["DATABASE_URL"] = "sqlite://:memory:"
    os.environ.setdefault("SQLITE_SYNCHRONOUS", "OFF")
    django.setup()

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, transaction
from django.test.utils import setup_databases, teardown_databases
from django.utils import timezone

from agents.pricing import PriceBook, Usage, cost_usd, load_price_book
from runs import reviews
from runs.commits import lock_items
from runs.models import Item, ModelCall, Output, Review, Trigger
from runs.triggers import record_decision, record_reply
from tests.bench.services import ROOT
from tests.engine import drain
from tests.simulator_fixture import SimulatorServer

SAMPLES = ROOT / "leads" / "samples" / "leads.csv"
LIMIT_SECONDS = 600.0
THINKING = {"low": Decimal("0.5"), "": Decimal(1), "medium": Decimal(1), "high": Decimal(2)}
"""Thinking tokens for each token of the answer, by effort. An assumption: nobody has published a figure."""
EUR_PER_USD = Decimal("0.92")
"""An assumed rate, so that the column can be read; not a quotation."""
MIXED_AIM, HOT_AIM = Decimal("0.02"), Decimal("0.04")
OPUS, SONNET = "claude-opus-5-5", "claude-sonnet-5-5"
RELIED_ON = ("researcher", "fact_checker")
"""Who works on Haiku although others rely on it: what the dearer choice would cost is shown."""
CONTEXT_TOKENS = 40_000
DATA_SHARE = 2
"""One part in so many of a prompt is taken for data, which a conversation grows by; the rest is SOUL and settings."""
MIXED_LEADS = 500
REPLY = "Yes, that sounds good. What does it cost for 1,200 consignments a month?"


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it is priced: tokens of the prompt, of the invented answer, and of thinking as assumed."""

    item_id: int | None
    run_id: int | None
    agent: str
    model: str
    prompt: int
    output: int

    @property
    def usage(self) -> Usage:
        """What it would be billed for, without any prompt cache."""
        return Usage(input_tokens=self.prompt, output_tokens=self.output)


@dataclass(frozen=True, slots=True)
class Line:
    """One choice: what its leads cost."""

    name: str
    leads: int
    calls: int
    tokens_in: int
    tokens_out: int
    usd: Decimal

    @property
    def per_lead(self) -> Decimal:
        """US dollars a lead, mean."""
        return self.usd / self.leads


@dataclass(frozen=True, slots=True)
class Table:
    """One set of leads at every choice of models; the first line is the shipped one."""

    title: str
    lines: Sequence[Line]
    aim: Decimal | None = None

    @property
    def is_reached(self) -> bool:
        """Whether the shipped choice costs no more than the aim."""
        return self.aim is None or self.lines[0].per_lead <= self.aim


def price(calls: Sequence[Call], prices: PriceBook, name: str, model: str = "", agents: Collection[str] = ()) -> Line:
    """These calls as they are, or all on one model, or those of some agents on it."""
    today, usd = timezone.now().date(), Decimal(0)
    for call in calls:
        other = model if not agents or call.agent in agents else ""
        usd += cost_usd(call.usage, prices.price_for(other or call.model, today, call.prompt))
    leads = len({call.item_id for call in calls})
    return Line(name, leads, len(calls), sum(c.prompt for c in calls), sum(c.output for c in calls), usd)


def as_one_agent(calls: Sequence[Call], *, base: int, is_cached: bool) -> tuple[list[Call], Callable[[Call], Usage]]:
    """The same steps by one agent in one conversation, which grows until it is full and is then begun anew.

    ``base`` is all SOULs and settings together. Each step adds its data and its answer; what was said before is read
    again by every later step, from the prompt cache if ``is_cached`` and then at its best: never a miss.
    """
    size, grown, reused = base, [], {}
    for number, call in enumerate(calls):
        added = max(call.prompt // DATA_SHARE, 1)
        if size + added + call.output > CONTEXT_TOKENS:
            size = base
        grown.append(replace(call, model=SONNET, prompt=size + added))
        reused[number] = size
        size += added + call.output
    cached = {id(call): reused[number] for number, call in enumerate(grown)}

    def usage(call: Call) -> Usage:
        if not is_cached:
            return call.usage
        kept = cached[id(call)]
        return Usage(cache_read_tokens=kept, cache_write_5m_tokens=call.prompt - kept, output_tokens=call.output)

    return grown, usage


def price_one_agent(calls: Sequence[Call], prices: PriceBook, *, base: int, is_cached: bool) -> Line:
    """What that would cost."""
    grown, usage = as_one_agent(calls, base=base, is_cached=is_cached)
    today = timezone.now().date()
    usd = sum((cost_usd(usage(c), prices.price_for(SONNET, today, c.prompt)) for c in grown), Decimal(0))
    name = f"one agent, context to {CONTEXT_TOKENS:,}, {'all cached' if is_cached else 'no cache'}"
    leads = len({call.item_id for call in calls})
    return Line(name, leads, len(grown), sum(c.prompt for c in grown), sum(c.output for c in grown), usd)


# --- Playing the leads -----------------------------------------------------------------------------------------


def mixed_csv(count: int) -> str:
    """So many leads: the samples over and over, each with an address and a company of its own."""
    with SAMPLES.open(encoding="utf-8", newline="") as file:
        samples = list(csv.DictReader(file))
    out = io.StringIO()
    writer = csv.DictWriter(out, samples[0])
    writer.writeheader()
    for number, sample in enumerate(itertools.islice(itertools.cycle(samples), count)):
        row = dict(sample)
        if number >= len(samples):
            name, _, host = row["Email"].partition("@")
            row["Email"] = f"{name}.{number}@{host}" if host else row["Email"]
            row["Company Name"] = f"{row['Company Name']} {number}".strip()
        writer.writerow(row)
    return out.getvalue()


def play(count: int, folder: Path) -> tuple[set[int], int]:
    """Import, run, and take the first Hot leads of the samples all the way; their ids and the size of all SOULs."""
    path = folder / "mixed.csv"
    path.write_text(mixed_csv(count), encoding="utf-8")
    call_command("sync_departments", stdout=io.StringIO())
    call_command("load_knowledge", str(ROOT / "leads" / "samples" / "knowledge"), stdout=io.StringIO())
    call_command("import_leads", str(path), stdout=io.StringIO())
    drain(limit_seconds=LIMIT_SECONDS, concurrency=50)
    first = Item.objects.order_by("pk").values_list("pk", flat=True)[:40]
    rated = Output.objects.filter(item__in=list(first), key="qualification", is_current=True)
    hot = {item for item, facets in rated.values_list("item", "facets") if facets.get("tier") == "Hot"}
    user = User.objects.create(username="economist", is_superuser=True)
    for _ in range(2):
        _send(hot, user)
    for pk in sorted(hot):
        record_reply(item=Item.objects.get(pk=pk), body=REPLY, subject="Re: Your freight invoices")
    drain(limit_seconds=LIMIT_SECONDS, concurrency=50)
    _send(hot, user)
    for pk in sorted(hot):
        _decide(pk, user)
    drain(limit_seconds=LIMIT_SECONDS, concurrency=50)
    system = sum(
        len("".join(block["text"] for block in call.body.request["system"]).encode()) // 3
        for call in _one_call_of_each_agent()
    )
    return hot, system


def _send(items: set[int], user: User) -> None:
    """A person approves and sends what is asked about, and its follow-up is due."""
    asked = Review.objects.filter(item__in=items, kind=Review.Kind.DRAFT, status=Review.Status.OPEN)
    for review in asked.select_related("output").order_by("pk"):
        if review.output is not None and reviews.approve(review=review, user=user):
            reviews.mark_sent(output=review.output, user=user)
    Trigger.objects.filter(item__in=items, kind=Trigger.Kind.FOLLOW_UP).update(due_at=timezone.now())
    Trigger.objects.filter(item__in=items, kind=Trigger.Kind.DECISION).update(due_at=timezone.now())
    Item.objects.filter(pk__in=items).update(route_due_at=timezone.now())
    drain(limit_seconds=LIMIT_SECONDS, concurrency=50)


def _decide(pk: int, user: User) -> None:
    with transaction.atomic():
        item = lock_items({pk})[pk]
        record_decision(item=item, payload={"answer": "meeting", "note": "A meeting on Tuesday."}, user=user)


def _one_call_of_each_agent() -> list[ModelCall]:
    calls = ModelCall.objects.select_related("body", "agent").order_by("agent", "pk")
    return [next(group) for _, group in itertools.groupby(calls, key=lambda call: call.agent_id)]


def read_calls() -> list[Call]:
    """Every call, priced as the module's docstring says."""
    found = []
    for call in ModelCall.objects.select_related("agent").order_by("pk"):
        answer = call.output_tokens - call.thinking_tokens
        output = int(answer * (1 + THINKING[call.agent.effort]))
        model = call.model_used or call.model_asked
        found.append(Call(call.item_id, call.agent_run_id, call.agent.slug, model, call.prompt_tokens, output))
    return found


# --- The table --------------------------------------------------------------------------------------------------


def render(tables: Sequence[Table]) -> str:
    """The tables, with their aims and with what was assumed."""
    head = f"{'':44}{'USD a lead':>12}{'tokens in':>12}{'out':>9}{'calls':>7}{'USD per 100,000 calls':>23}"
    parts = []
    for table in tables:
        parts += [f"{table.title}, mean of {table.lines[0].leads}", head]
        parts += [
            f"  {line.name:42}{line.per_lead:12.5f}{line.tokens_in // line.leads:12,}{line.tokens_out // line.leads:9,}"
            f"{line.calls / line.leads:7.1f}{line.usd / line.calls * 100_000:23,.2f}"
            for line in table.lines
        ]
        if table.aim is not None:
            parts.append(f"  aim: <= {table.aim} USD: {'reached' if table.is_reached else 'MISSED'}")
        parts.append("")
    totals = [(line.name, line.per_lead * MIXED_LEADS) for line in tables[0].lines]
    thinking = ", ".join(f"{effort or 'default'} {share}" for effort, share in THINKING.items())
    parts += [
        f"{f'{MIXED_LEADS} mixed leads':44}{'USD':>12}{'EUR':>12}",
        *(f"  {name:42}{usd:12.2f}{usd * EUR_PER_USD:12.2f}" for name, usd in totals),
        f"  EUR at an assumed {EUR_PER_USD} a dollar.",
        "",
        f"Assumed: thinking tokens for each token of an answer, by effort: {thinking}. No prompt cache",
        f"but where it is named. One agent's conversation grows by 1/{DATA_SHARE} of each prompt, taken for its data,",
        "and by each answer.",
        "Input tokens are of the real requests, estimated from their characters; answers are the simulator's. None of",
        "this was measured on Claude.",
    ]
    return "\n".join(parts)


def render_agents(calls: Sequence[Call], prices: PriceBook) -> str:
    """Where the money of a lead goes, by agent, the dearest first: what is read, and what is written."""
    today, leads = timezone.now().date(), len({call.item_id for call in calls})
    found: dict[str, list[Decimal]] = {}
    for call in calls:
        rates = prices.price_for(call.model, today, call.prompt)
        read, written = Usage(input_tokens=call.prompt), Usage(output_tokens=call.output)
        sums = found.setdefault(f"{call.agent}, {call.model}", [Decimal(0)] * 3)
        for place, value in enumerate((Decimal(1), cost_usd(read, rates), cost_usd(written, rates))):
            sums[place] += value / leads
    lines = [f"{'Where it goes, by agent':44}{'USD a lead':>12}{'read':>12}{'written':>9}{'calls':>7}"]
    lines += [
        f"  {name:42}{read + written:12.5f}{read:12.5f}{written:9.5f}{count:7.1f}"
        for name, (count, read, written) in sorted(found.items(), key=lambda entry: -sum(entry[1][1:]))
    ]
    return "\n".join(lines)


def compute(calls: Sequence[Call], hot: Iterable[int], prices: PriceBook, base: int) -> list[Table]:
    """All leads up to their first mail, the Hot ones among them, and these all the way."""
    chosen = set(hot)
    first = _first_mails(calls)
    whole = _compare(_of(calls, chosen), prices, base)
    return [
        Table("A lead of a mixed set, up to its first mail", _compare(first, prices, base), MIXED_AIM),
        Table("A Hot lead, up to its first mail", _compare(_of(first, chosen), prices, base), HOT_AIM),
        Table("A Hot lead with follow-up, reply, answer and decisions", whole, HOT_AIM),
    ]


def _of(calls: Iterable[Call], items: set[int]) -> list[Call]:
    return [call for call in calls if call.item_id in items]


def _first_mails(calls: Sequence[Call]) -> list[Call]:
    later = ("followup_writer", "reply_handler", "crm_scribe")
    first: dict[tuple[int | None, str], int | None] = {}
    found = []
    for call in calls:
        # Checking and formatting come again with every later mail; a repair is another call of the same step.
        is_first = first.setdefault((call.item_id, call.agent), call.run_id) == call.run_id
        if call.agent not in later and (is_first or call.agent not in ("fact_checker", "formatter")):
            found.append(call)
    return found


def _compare(calls: Sequence[Call], prices: PriceBook, base: int) -> list[Line]:
    return [
        price(calls, prices, "the shipped choice of models"),
        price(calls, prices, "research and checks on Sonnet 5.5 too", SONNET, RELIED_ON),
        price(calls, prices, "all on Sonnet 5.5", SONNET),
        price(calls, prices, "all on Opus 5.5", OPUS),
        price_one_agent(calls, prices, base=base, is_cached=False),
        price_one_agent(calls, prices, base=base, is_cached=True),
    ]


def main() -> int:
    """Print the tables; 1 if an aim was missed."""
    parser = argparse.ArgumentParser(prog="make economics", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--leads", type=int, default=MIXED_LEADS, help="size of the mixed set")
    options = parser.parse_args()
    settings.TOOLS_NETWORK, settings.SHIFTS = False, 1
    with tempfile.TemporaryDirectory() as folder, SimulatorServer() as simulator:
        settings.ANTHROPIC_BASE_URL = simulator.base_url
        connection.settings_dict["TEST"]["NAME"] = str(Path(folder, "economics.sqlite3"))
        databases = setup_databases(verbosity=0, interactive=False)
        try:
            hot, base = play(options.leads, Path(folder))
            calls, prices = read_calls(), load_price_book()
            tables, by_agent = compute(calls, hot, prices, base), render_agents(_of(calls, hot), prices)
        finally:
            teardown_databases(databases, verbosity=0)
    print(f"{render(tables)}\n\n{by_agent}")
    return 0 if all(table.is_reached for table in tables) else 1


if __name__ == "__main__":
    sys.exit(main())
