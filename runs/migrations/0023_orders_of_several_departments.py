from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("runs", "0022_days_of_items")]

    operations = [
        migrations.AddIndex(
            model_name="item",
            index=models.Index(fields=["-changed_at", "-id"], name="item_last_changed_of_all"),
        ),
        migrations.AddIndex(
            model_name="item",
            index=models.Index(
                fields=["route_due_at", "id"], condition=Q(route_due_at__isnull=False), name="item_due_next_of_all"
            ),
        ),
        migrations.AddIndex(
            model_name="itemtotal",
            index=models.Index(fields=["-cost_units", "-item"], name="item_total_dearest_of_all"),
        ),
        migrations.AddIndex(
            model_name="review",
            index=models.Index(fields=["-answered_at"], condition=Q(status="answered"), name="review_answered_lately"),
        ),
    ]
