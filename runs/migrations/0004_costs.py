import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("agents", "0004_installation"),
        ("runs", "0003_control_and_sending"),
    ]

    operations = [
        migrations.CreateModel(
            name="CostCorrection",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("before_usd", models.DecimalField(decimal_places=8, max_digits=16)),
                ("after_usd", models.DecimalField(decimal_places=8, max_digits=16)),
                ("reason", models.CharField(max_length=300)),
                ("at", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            name="CostRollup",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("key", models.CharField(max_length=200, unique=True)),
                ("day", models.DateField()),
                ("model", models.CharField(help_text="The one that answered, or that was asked.", max_length=64)),
                (
                    "is_waste",
                    models.BooleanField(
                        help_text="The calls brought nothing that was used: failed, cut, refused, unseen."
                    ),
                ),
                (
                    "is_estimate",
                    models.BooleanField(help_text="The end of the calls was not seen: their costs are bounds."),
                ),
                ("calls", models.BigIntegerField(default=0)),
                ("input_tokens", models.BigIntegerField(default=0)),
                ("cache_write_5m_tokens", models.BigIntegerField(default=0)),
                ("cache_write_1h_tokens", models.BigIntegerField(default=0)),
                ("cache_read_tokens", models.BigIntegerField(default=0)),
                ("output_tokens", models.BigIntegerField(default=0)),
                ("cost_units", models.BigIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="ItemCost",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("day", models.DateField()),
                ("calls", models.BigIntegerField(default=0)),
                ("cost_units", models.BigIntegerField(default=0)),
                ("waste_units", models.BigIntegerField(default=0)),
            ],
        ),
        migrations.AddField(
            model_name="modelcall",
            name="rolled",
            field=models.CharField(
                blank=True,
                choices=[("", "not yet"), ("unseen", "as unseen"), ("done", "as settled")],
                default="",
                help_text="As what it is in the rollups of costs.",
                max_length=6,
            ),
        ),
        migrations.AddIndex(
            model_name="modelcall",
            index=models.Index(
                condition=models.Q(
                    models.Q(("rolled", ""), ("status__in", ["finished", "unseen"])),
                    models.Q(("rolled", "unseen"), ("status", "finished")),
                    _connector="OR",
                ),
                fields=["id"],
                name="model_call_unrolled",
            ),
        ),
        migrations.AddField(
            model_name="costcorrection",
            name="call",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="corrections", to="runs.modelcall"
            ),
        ),
        migrations.AddField(
            model_name="costcorrection",
            name="price_after",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="+", to="agents.modelprice"
            ),
        ),
        migrations.AddField(
            model_name="costcorrection",
            name="price_before",
            field=models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to="agents.modelprice"
            ),
        ),
        migrations.AddField(
            model_name="costrollup",
            name="agent",
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="+", to="agents.agent"),
        ),
        migrations.AddField(
            model_name="costrollup",
            name="department",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="+", to="agents.department"
            ),
        ),
        migrations.AddField(
            model_name="costrollup",
            name="soul",
            field=models.ForeignKey(
                blank=True,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="agents.soul",
            ),
        ),
        migrations.AddField(
            model_name="itemcost",
            name="department",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="+", to="agents.department"
            ),
        ),
        migrations.AddField(
            model_name="itemcost",
            name="item",
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="+", to="runs.item"),
        ),
        migrations.AddConstraint(
            model_name="costcorrection",
            constraint=models.CheckConstraint(
                condition=models.Q(("reason", ""), _negated=True), name="correction_has_a_reason"
            ),
        ),
        migrations.AddIndex(
            model_name="costrollup",
            index=models.Index(fields=["department", "day"], name="cost_rollup_by_day"),
        ),
        migrations.AddIndex(
            model_name="itemcost",
            index=models.Index(fields=["department", "day"], name="item_cost_by_day"),
        ),
        migrations.AddConstraint(
            model_name="itemcost",
            constraint=models.UniqueConstraint(fields=("item", "day"), name="one_cost_per_item_and_day"),
        ),
    ]
