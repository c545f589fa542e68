from __future__ import annotations

from collections import Counter
from datetime import UTC
from typing import Any

from django.db import migrations, models
from django.db.models import Case, F, Q, Value, When

UNUSED = "The answer was not used: its attempt ended without an output."
TOKENS = ("input_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "cache_read_tokens")


def discard_answers(apps: Any, editor: Any) -> None:
    """Answers of attempts that ended without an output were counted as used."""
    calls = apps.get_model("runs", "ModelCall").objects.filter(status="finished", cause="", error="")
    lost = Q(agent_run__status__in=["queued", "failed", "cancelled", "superseded"])
    lost |= Q(agent_run__attempt__gt=F("attempt")) | Q(try_out__status__in=["failed", "stopped"])
    calls.filter(lost).update(error=UNUSED, rolled=Case(When(rolled="done", then=Value("used")), default=F("rolled")))


def leave_out_unbilled_tokens(apps: Any, editor: Any) -> None:
    """The tokens of refusals before any output were added to the sums, although nobody paid for them."""
    calls = apps.get_model("runs", "ModelCall").objects.filter(cause="refusal", output_tokens=0, rolled="done")
    sums: dict[str, Counter[str]] = {}
    for call in calls.iterator():
        head = f"{call.department_id}:{call.started_at.astimezone(UTC).date()}:{call.agent_id}:{call.soul_id or 0}"
        key = f"{head}:1{call.is_estimate:d}:{call.model_used or call.model_asked}"
        sums.setdefault(key, Counter()).update({name: getattr(call, name) for name in TOKENS})
    rollups = apps.get_model("runs", "CostRollup").objects
    for key, tokens in sums.items():
        rollups.filter(key=key).update(**{name: F(name) - count for name, count in tokens.items()})


class Migration(migrations.Migration):
    dependencies = [
        ("runs", "0023_orders_of_several_departments"),
    ]

    operations = [
        migrations.AlterField(
            model_name="modelcall",
            name="error",
            field=models.TextField(
                blank=True,
                help_text="What was wrong with the call, or why its answer was of no use. Empty with no cause: used.",
            ),
        ),
        migrations.AlterField(
            model_name="modelcall",
            name="rolled",
            field=models.CharField(
                blank=True,
                choices=[
                    ("", "not yet"),
                    ("unseen", "as unseen"),
                    ("used", "as used, and it was of no use"),
                    ("done", "as settled"),
                ],
                default="",
                help_text="As what it is in the rollups of costs.",
                max_length=6,
            ),
        ),
        migrations.RunPython(discard_answers, migrations.RunPython.noop, elidable=True),
        migrations.RunPython(leave_out_unbilled_tokens, migrations.RunPython.noop, elidable=True),
        migrations.RemoveIndex(model_name="modelcall", name="model_call_unrolled"),
        migrations.AddIndex(
            model_name="modelcall",
            index=models.Index(
                condition=models.Q(
                    models.Q(("rolled", ""), ("status__in", ["finished", "unseen"])),
                    models.Q(("rolled", "unseen"), ("status", "finished")),
                    models.Q(("rolled", "used"), ("status", "finished")),
                    _connector="OR",
                ),
                fields=["id"],
                name="model_call_to_roll",
            ),
        ),
    ]
