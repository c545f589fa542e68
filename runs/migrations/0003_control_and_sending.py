import django.core.validators
import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("agents", "0004_installation"),
        ("runs", "0002_alerts"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="AutoApproval",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=120)),
                ("when", models.JSONField(default=dict, help_text="Clauses on the item's facts, for example a tier.")),
                ("max_risk", models.PositiveSmallIntegerField(default=1)),
                (
                    "sample_percent",
                    models.PositiveSmallIntegerField(default=10, help_text="So many of 100 still go to a person."),
                ),
                ("is_enabled", models.BooleanField(default=False)),
                ("revoked_at", models.DateTimeField(blank=True, editable=False, null=True)),
                ("revoked_why", models.CharField(blank=True, editable=False, max_length=300)),
            ],
        ),
        migrations.CreateModel(
            name="Channel",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("kind", models.SlugField()),
                ("is_enabled", models.BooleanField(default=True)),
                (
                    "settings",
                    models.JSONField(blank=True, default=dict, help_text="What the plug-in asks for: sender, URL, ..."),
                ),
                (
                    "secret_env",
                    models.CharField(
                        blank=True,
                        help_text="Name of the environment variable with its secret. The secret itself is never stored.",
                        max_length=64,
                        validators=[
                            django.core.validators.RegexValidator("^[A-Z][A-Z0-9_]*$", "Name an environment variable.")
                        ],
                    ),
                ),
                (
                    "undo_seconds",
                    models.PositiveIntegerField(default=60, help_text="So long an approval can be taken back."),
                ),
                (
                    "per_minute",
                    models.PositiveIntegerField(default=30, help_text="The most that leaves in a minute; 0: no limit."),
                ),
                (
                    "daily_cap",
                    models.PositiveIntegerField(
                        default=200, help_text="The most that leaves in 24 hours; 0: no limit."
                    ),
                ),
                (
                    "quiet_from",
                    models.TimeField(blank=True, help_text="In the time zone of the item's person.", null=True),
                ),
                ("quiet_to", models.TimeField(blank=True, null=True)),
            ],
        ),
        migrations.CreateModel(
            name="RiskRule",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("position", models.PositiveIntegerField(default=0)),
                ("name", models.CharField(max_length=120)),
                (
                    "when",
                    models.JSONField(
                        default=dict, help_text="Clauses on the item's facts; see runs.risk for its own marks."
                    ),
                ),
                ("risk", models.PositiveSmallIntegerField(default=3, help_text="1 low, 2 medium, 3 high.")),
                ("is_enabled", models.BooleanField(default=True)),
            ],
            options={
                "ordering": ("position", "pk"),
            },
        ),
        migrations.CreateModel(
            name="SendBack",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("key", models.SlugField(help_text="What is to be written again.")),
                ("note", models.TextField()),
                ("at", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.AddField(
            model_name="agentrun",
            name="pinned_model",
            field=models.CharField(blank=True, help_text="The model a person chose for this run.", max_length=64),
        ),
        migrations.AddField(
            model_name="agentrun",
            name="pinned_soul",
            field=models.ForeignKey(
                blank=True,
                db_index=False,
                help_text="The SOUL a person chose for this run, instead of the published one.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="agents.soul",
            ),
        ),
        migrations.AddField(
            model_name="message",
            name="author",
            field=models.ForeignKey(
                blank=True,
                help_text="The person who wrote it by hand, or entered it.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="outboxmessage",
            name="approved_at",
            field=models.DateTimeField(default=django.utils.timezone.now),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="outboxmessage",
            name="approved_by",
            field=models.ForeignKey(
                blank=True,
                help_text="Null: a rule or the agent's policy approved it.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="outboxmessage",
            name="attempt",
            field=models.PositiveIntegerField(default=0, help_text="How often it was claimed for sending."),
        ),
        migrations.AddField(
            model_name="outboxmessage",
            name="configuration",
            field=models.CharField(
                blank=True, help_text="Fingerprint of SOULs, models and rules that made it.", max_length=64
            ),
        ),
        migrations.AddField(
            model_name="outboxmessage",
            name="error",
            field=models.TextField(blank=True, help_text="What the other side said last."),
        ),
        migrations.AddField(
            model_name="outboxmessage",
            name="waiting_for",
            field=models.CharField(blank=True, help_text="Why it has not left although it is due.", max_length=300),
        ),
        migrations.AddField(
            model_name="output",
            name="origin",
            field=models.CharField(
                choices=[
                    ("agent", "an agent"),
                    ("injected", "entered by a person"),
                    ("edited", "edited by a person"),
                    ("corrected", "corrected by a person"),
                ],
                default="agent",
                max_length=9,
            ),
        ),
        migrations.AddField(
            model_name="output",
            name="replaces",
            field=models.ForeignKey(
                blank=True,
                db_index=False,
                help_text="The output that was current before a person wrote this one: the diff is between the two.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="runs.output",
            ),
        ),
        migrations.AddField(
            model_name="output",
            name="retired_why",
            field=models.CharField(blank=True, help_text="Why it is no longer current.", max_length=200),
        ),
        migrations.AddField(
            model_name="review",
            name="edited",
            field=models.ForeignKey(
                blank=True,
                db_index=False,
                help_text="What a person made of the output: an edited mail, a corrected classification.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="runs.output",
            ),
        ),
        migrations.AddField(
            model_name="review",
            name="outbox",
            field=models.ForeignKey(
                blank=True,
                db_index=False,
                help_text="The message it asks about, if that may have been sent.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="reviews",
                to="runs.outboxmessage",
            ),
        ),
        migrations.AddField(
            model_name="review",
            name="reason_code",
            field=models.CharField(
                blank=True,
                choices=[
                    ("facts", "wrong or unsupported facts"),
                    ("tone", "wrong tone"),
                    ("person", "wrong person or company"),
                    ("timing", "wrong moment"),
                    ("offer", "wrong offer"),
                    ("length", "too long or too short"),
                    ("other", "something else"),
                ],
                max_length=12,
            ),
        ),
        migrations.AddField(
            model_name="review",
            name="reminded_at",
            field=models.DateTimeField(blank=True, help_text="When the deadline was last acted upon.", null=True),
        ),
        migrations.AddField(
            model_name="review",
            name="risk_why",
            field=models.CharField(blank=True, help_text="The risk rules that raised it.", max_length=300),
        ),
        migrations.AddField(
            model_name="review",
            name="snoozed_until",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="suppression",
            name="author",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AlterField(
            model_name="outboxmessage",
            name="output",
            field=models.ForeignKey(
                blank=True,
                help_text="Null: a person wrote it by hand.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="outbox",
                to="runs.output",
            ),
        ),
        migrations.AlterField(
            model_name="review",
            name="answer",
            field=models.CharField(
                blank=True,
                choices=[
                    ("approve", "approved"),
                    ("approve_edited", "approved with changes"),
                    ("send_back", "sent back"),
                    ("reject", "rejected"),
                    ("correct", "corrected"),
                    ("take_over", "taken over"),
                    ("retry", "retried"),
                    ("accept", "gone on without"),
                    ("was_sent", "had been sent"),
                    ("not_sent", "had not been sent"),
                    ("dismiss", "put aside"),
                ],
                max_length=20,
            ),
        ),
        migrations.AlterField(
            model_name="review",
            name="at_deadline",
            field=models.CharField(
                choices=[
                    ("nothing", "nothing happens"),
                    ("remind", "people are reminded"),
                    ("escalate", "it goes up the chain of command"),
                    ("reject", "it is rejected"),
                ],
                default="remind",
                max_length=12,
            ),
        ),
        migrations.AlterField(
            model_name="suppression",
            name="reason",
            field=models.CharField(
                choices=[
                    ("opt_out", "asked not to be written to"),
                    ("bounce", "mail came back"),
                    ("complaint", "complained about a mail"),
                    ("manual", "entered by a person"),
                ],
                max_length=12,
            ),
        ),
        migrations.AddIndex(
            model_name="action",
            index=models.Index(fields=["department", "-id"], name="action_by_department"),
        ),
        migrations.AddIndex(
            model_name="action",
            index=models.Index(fields=["user", "-id"], name="action_by_user"),
        ),
        migrations.AddIndex(
            model_name="outboxmessage",
            index=models.Index(
                condition=models.Q(("status", "sending")), fields=["lease_expires_at"], name="outbox_leased"
            ),
        ),
        migrations.AddIndex(
            model_name="outboxmessage",
            index=models.Index(
                condition=models.Q(("sent_at__isnull", False)),
                fields=["department", "channel", "-sent_at"],
                name="outbox_sent",
            ),
        ),
        migrations.AddConstraint(
            model_name="outboxmessage",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("status", "sending"), _negated=True),
                    models.Q(("lease_expires_at__isnull", False), ("lease_token__isnull", False)),
                    _connector="OR",
                ),
                name="outbox_sending_means_leased",
            ),
        ),
        migrations.AddConstraint(
            model_name="output",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("origin", "agent"), ("origin__in", ["injected", "edited", "corrected"]), _connector="OR"
                ),
                name="output_origin_known",
            ),
        ),
        migrations.AddField(
            model_name="autoapproval",
            name="agent",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="auto_approvals", to="agents.agent"
            ),
        ),
        migrations.AddField(
            model_name="autoapproval",
            name="department",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="auto_approvals", to="agents.department"
            ),
        ),
        migrations.AddField(
            model_name="review",
            name="by_rule",
            field=models.ForeignKey(
                blank=True,
                db_index=False,
                help_text="The rule that answered it instead of a person, or that left it to one as a sample.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="reviews",
                to="runs.autoapproval",
            ),
        ),
        migrations.AddIndex(
            model_name="review",
            index=models.Index(condition=models.Q(("status", "open")), fields=["deadline"], name="review_deadline"),
        ),
        migrations.AddIndex(
            model_name="review",
            index=models.Index(
                condition=models.Q(("status", "answered")),
                fields=["department", "-answered_at"],
                name="review_answered",
            ),
        ),
        migrations.AddConstraint(
            model_name="review",
            constraint=models.UniqueConstraint(
                condition=models.Q(("kind__in", ["degraded", "fell_through"]), ("status", "open")),
                fields=("item", "kind"),
                name="one_open_review_per_item_and_kind",
            ),
        ),
        migrations.AddConstraint(
            model_name="review",
            constraint=models.UniqueConstraint(
                condition=models.Q(("outbox__isnull", False), ("status", "open")),
                fields=("outbox",),
                name="one_open_review_per_outbox_message",
            ),
        ),
        migrations.AddField(
            model_name="channel",
            name="department",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="channels", to="agents.department"
            ),
        ),
        migrations.AddField(
            model_name="riskrule",
            name="department",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="risk_rules", to="agents.department"
            ),
        ),
        migrations.AddField(
            model_name="sendback",
            name="author",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="sendback",
            name="item",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="send_backs", to="runs.item"
            ),
        ),
        migrations.AddField(
            model_name="sendback",
            name="output",
            field=models.ForeignKey(
                blank=True,
                help_text="What was sent back.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="runs.output",
            ),
        ),
        migrations.AddField(
            model_name="sendback",
            name="review",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="send_backs",
                to="runs.review",
            ),
        ),
        migrations.AddField(
            model_name="sendback",
            name="trigger",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="send_backs",
                to="runs.trigger",
            ),
        ),
        migrations.AddConstraint(
            model_name="autoapproval",
            constraint=models.UniqueConstraint(fields=("department", "name"), name="auto_approval_named_once"),
        ),
        migrations.AddConstraint(
            model_name="autoapproval",
            constraint=models.CheckConstraint(
                condition=models.Q(("sample_percent__lte", 100)), name="sample_is_a_share"
            ),
        ),
        migrations.AddConstraint(
            model_name="autoapproval",
            constraint=models.CheckConstraint(
                condition=models.Q(("is_enabled", False), ("revoked_at", None), _connector="OR"),
                name="revoked_auto_approval_is_off",
            ),
        ),
        migrations.AddConstraint(
            model_name="channel",
            constraint=models.UniqueConstraint(fields=("department", "kind"), name="one_channel_of_a_kind"),
        ),
        migrations.AddConstraint(
            model_name="channel",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("quiet_from", None), ("quiet_to", None)),
                    models.Q(("quiet_from__isnull", False), ("quiet_to__isnull", False)),
                    _connector="OR",
                ),
                name="quiet_hours_begin_and_end",
            ),
        ),
        migrations.AddConstraint(
            model_name="riskrule",
            constraint=models.UniqueConstraint(fields=("department", "name"), name="risk_rule_named_once"),
        ),
        migrations.AddConstraint(
            model_name="riskrule",
            constraint=models.CheckConstraint(condition=models.Q(("risk__in", [1, 2, 3])), name="risk_known"),
        ),
        migrations.AddIndex(
            model_name="sendback",
            index=models.Index(fields=["item", "key"], name="send_back_of_item"),
        ),
    ]
