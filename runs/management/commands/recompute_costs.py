"""``manage.py recompute_costs``: after a price was corrected, what calls had cost with it."""

from __future__ import annotations

from argparse import ArgumentParser
from collections import Counter, defaultdict
from datetime import UTC, date
from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from agents.pricing import load_price_book
from runs.repricing import apply_changes, find_changes, sum_left


class Command(BaseCommand):
    """Shows the difference by model; with ``--apply`` and a reason it is written down, the old figures kept."""

    help = "Price calls anew with the prices as they are entered now. Shows the difference; --apply --reason writes it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--from", dest="first", type=date.fromisoformat, required=True, help="YYYY-MM-DD (UTC)")
        parser.add_argument("--to", dest="last", type=date.fromisoformat, help="last day (default: today)")
        parser.add_argument("--model", action="append", default=[], help="only calls on this model; may be repeated")
        parser.add_argument("--apply", action="store_true", help="write it down")
        parser.add_argument("--reason", default="", help="why; stays with every corrected call")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["apply"] and not options["reason"].strip():
            raise CommandError("Say why with --reason: it stays with every corrected call.")
        last = options["last"] or timezone.now().astimezone(UTC).date()
        prices = load_price_book()
        if unknown := sorted(set(options["model"]) - set(prices.models)):
            raise CommandError(f"{', '.join(unknown)} has no price. Enter one under Prices first.")
        count, usd = sum_left(options["first"], last, options["model"])
        left = f" {count:,} estimates ({usd:.8f} USD) were left as they are." if count else ""
        calls: Counter[str] = Counter()
        sums: defaultdict[str, list[Decimal]] = defaultdict(lambda: [Decimal(0), Decimal(0)])
        for change in find_changes(prices, options["first"], last, options["model"]):
            model = change.price.model
            calls[model] += 1
            sums[model][0] += change.call.cost_usd
            sums[model][1] += change.usd
        if not calls:
            self.stdout.write(f"Every call whose tokens are known costs what its price says: nothing to change.{left}")
            return
        for model, count in sorted(calls.items()):
            before, after = sums[model]
            self.stdout.write(f"{model}: {count:,} calls, {before:.8f} → {after:.8f} USD ({after - before:+.8f})")
        if not options["apply"]:
            self.stdout.write(f"Nothing was changed. Write it down with --apply --reason '…'.{left}")
            return
        done = apply_changes(find_changes(prices, options["first"], last, options["model"]), reason=options["reason"])
        self.stdout.write(f"{done:,} calls were priced anew. The old figures are kept as corrections.{left}")
