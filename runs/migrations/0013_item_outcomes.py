import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("agents", "0005_permissions"),
        ("runs", "0012_lists"),
    ]

    operations = [
        migrations.CreateModel(
            name="ItemOutcome",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("outcome", models.CharField(max_length=60)),
                ("at", models.DateTimeField()),
                (
                    "department",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="agents.department",
                    ),
                ),
                (
                    "item",
                    models.ForeignKey(
                        db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name="+", to="runs.item"
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["department", "at", "outcome"], name="item_outcome_by_day")],
                "constraints": [models.UniqueConstraint(fields=("item", "outcome"), name="one_first_time_per_outcome")],
            },
        ),
    ]
