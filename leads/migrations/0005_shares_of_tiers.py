from django.db import migrations

# filters.fitting: PostgreSQL takes a tier for one output in two hundred unless it is told, and then reads all outputs
# of a tier to find the newest fifty leads that have another property too. Expressions are counted from 14 on.
STATISTICS = "CREATE STATISTICS lead_tier_share (mcv) ON key, is_current, (facets -> 'tier') FROM runs_output"


def count_shares(apps, schema_editor):
    connection = schema_editor.connection
    if connection.vendor == "postgresql" and connection.pg_version >= 140_000:
        schema_editor.execute(STATISTICS)


def forget_shares(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("DROP STATISTICS IF EXISTS lead_tier_share")


class Migration(migrations.Migration):
    dependencies = [("leads", "0004_examples_first"), ("runs", "0020_first_among_many")]

    operations = [migrations.RunPython(count_shares, forget_shares)]
