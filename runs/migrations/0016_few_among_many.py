from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("runs", "0015_lists_of_runs")]

    operations = [
        migrations.AddIndex(
            model_name="agentrun",
            index=models.Index(
                fields=["agent", "queued_at"], condition=Q(trespasses__gt=0), name="agent_run_trespassed"
            ),
        ),
        migrations.AddIndex(
            model_name="output",
            index=models.Index(
                fields=["created_at"],
                condition=Q(origin__in=["injected", "edited", "corrected"]),
                name="output_by_person",
            ),
        ),
    ]
