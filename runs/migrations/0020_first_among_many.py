from datetime import UTC, datetime

from django.db import migrations, models
from django.db.models import DateTimeField, F, Index, Q, Value
from django.db.models.functions import Coalesce

NEVER = Value(datetime(9999, 1, 1, tzinfo=UTC), output_field=DateTimeField())


class Migration(migrations.Migration):
    dependencies = [("runs", "0019_calls_of_no_item")]

    operations = [
        migrations.AddIndex(
            model_name="item", index=models.Index(fields=["department", "status"], name="item_counted")
        ),
        migrations.AddIndex(
            model_name="review",
            index=Index(
                F("risk").desc(), Coalesce("deadline", NEVER), "id", condition=Q(status="open"), name="review_in_order"
            ),
        ),
    ]
