import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

TOTALS = (
    "INSERT INTO runs_itemtotal (item_id, department_id, calls, cost_units) "
    "SELECT item_id, MIN(department_id), SUM(calls), SUM(cost_units) FROM runs_itemcost GROUP BY item_id"
)


class Migration(migrations.Migration):
    dependencies = [
        ("agents", "0005_permissions"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("runs", "0011_hours"),
    ]

    operations = [
        migrations.CreateModel(
            name="SavedView",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("list_name", models.SlugField(help_text="Which list it is a view of, for example leads.")),
                ("name", models.CharField(max_length=80)),
                (
                    "params",
                    models.JSONField(blank=True, default=dict, help_text="The query parameters: filters and order."),
                ),
                (
                    "columns",
                    models.JSONField(
                        blank=True, default=list, help_text="The columns in their order; empty: as chosen."
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "department",
                    models.ForeignKey(
                        blank=True,
                        help_text="Whose members may use it; empty: only its owner.",
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="saved_views",
                        to="agents.department",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="saved_views",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("user", "list_name", "name"), name="saved_view_named_once"),
                    models.CheckConstraint(condition=~models.Q(name=""), name="saved_view_has_a_name"),
                ],
            },
        ),
        migrations.CreateModel(
            name="ListChoice",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("list_name", models.SlugField()),
                (
                    "columns",
                    models.JSONField(
                        blank=True, default=list, help_text="The columns in their order; empty: the usual ones."
                    ),
                ),
                (
                    "default_view",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to="runs.savedview",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="list_choices",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("user", "list_name"), name="one_choice_per_person_and_list")
                ],
            },
        ),
        migrations.CreateModel(
            name="ItemTotal",
            fields=[
                (
                    "item",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="total",
                        serialize=False,
                        to="runs.item",
                    ),
                ),
                ("calls", models.BigIntegerField(default=0)),
                ("cost_units", models.BigIntegerField(default=0)),
                (
                    "department",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="agents.department",
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["department", "-cost_units", "-item"], name="item_total_dearest")],
            },
        ),
        migrations.AddIndex(
            model_name="item",
            index=models.Index(fields=["department", "-changed_at", "-id"], name="item_last_changed"),
        ),
        migrations.RunSQL(TOTALS, migrations.RunSQL.noop),
    ]
