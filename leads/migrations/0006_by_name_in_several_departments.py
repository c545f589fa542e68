from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("leads", "0005_shares_of_tiers")]

    operations = [
        migrations.AddIndex(model_name="lead", index=models.Index(fields=["name", "item"], name="lead_by_name_of_all")),
    ]
