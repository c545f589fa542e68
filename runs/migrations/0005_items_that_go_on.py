from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("runs", "0004_costs")]

    operations = [
        migrations.AddIndex(
            model_name="item",
            index=models.Index(
                condition=models.Q(("automation_until__isnull", False)),
                fields=["automation_until"],
                name="item_goes_on",
            ),
        ),
    ]
