from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("agents", "0005_permissions")]

    operations = [
        migrations.AddField(
            model_name="budgetperiod",
            name="extra_tokens",
            field=models.BigIntegerField(default=0, help_text="Allowed once by an administrator."),
        ),
    ]
