from django.db import migrations, models

LINK = """UPDATE runs_itemcost SET day_before = linked.before FROM (
    SELECT id, LAG(day) OVER (PARTITION BY item_id ORDER BY day) AS before FROM runs_itemcost
) linked WHERE linked.id = runs_itemcost.id AND linked.before IS NOT NULL"""


class Migration(migrations.Migration):
    dependencies = [
        ("runs", "0021_sign_in_attempts"),
    ]

    operations = [
        migrations.AddField(
            model_name="itemcost",
            name="day_before",
            field=models.DateField(blank=True, help_text="The item's last day before this one; null: none.", null=True),
        ),
        migrations.RunSQL(LINK, migrations.RunSQL.noop),
    ]
