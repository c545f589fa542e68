from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("runs", "0006_outbox_ends"),
    ]

    operations = [
        migrations.AlterField(
            model_name="agentrun",
            name="cause",
            field=models.CharField(
                blank=True,
                choices=[
                    ("", "nothing went wrong"),
                    ("transient", "connection or server trouble"),
                    ("timeout", "no answer in time"),
                    ("rate_limited", "rate limit reached"),
                    ("overloaded", "API overloaded"),
                    ("invalid", "answer does not fit the schema"),
                    ("truncated", "answer cut off"),
                    ("refusal", "the model refused"),
                    ("request", "request refused by the API"),
                    ("account", "key, permission or billing"),
                    ("lost", "worker lost"),
                    ("tools", "too many tool calls"),
                    ("internal", "error in Kontor"),
                    ("cut_off", "closed before its end"),
                ],
                default="",
                max_length=16,
            ),
        ),
        migrations.AlterField(
            model_name="modelcall",
            name="cause",
            field=models.CharField(
                blank=True,
                choices=[
                    ("", "nothing went wrong"),
                    ("transient", "connection or server trouble"),
                    ("timeout", "no answer in time"),
                    ("rate_limited", "rate limit reached"),
                    ("overloaded", "API overloaded"),
                    ("invalid", "answer does not fit the schema"),
                    ("truncated", "answer cut off"),
                    ("refusal", "the model refused"),
                    ("request", "request refused by the API"),
                    ("account", "key, permission or billing"),
                    ("lost", "worker lost"),
                    ("tools", "too many tool calls"),
                    ("internal", "error in Kontor"),
                    ("cut_off", "closed before its end"),
                ],
                default="",
                max_length=16,
            ),
        ),
    ]
