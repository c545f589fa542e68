from django.db import DatabaseError, migrations, models, transaction

# filters.fitting: name, e-mail and company as one text, searched for pieces of words; and the tier, which lies in the
# output of the qualification. Both are expressions, so that no column has to be kept in step with another.
EXTENSION = "CREATE EXTENSION IF NOT EXISTS pg_trgm"
SEARCH = "CREATE INDEX lead_search ON leads_lead USING gin (LOWER(name || ' ' || email || ' ' || company) gin_trgm_ops)"
TIER = (
    "CREATE INDEX lead_tier ON runs_output ((facets -> 'tier'), item_id DESC) "
    "WHERE key = 'qualification' AND is_current"
)


def make_indexes(apps, schema_editor):
    if schema_editor.connection.vendor != "postgresql":
        return
    schema_editor.execute(TIER)
    try:
        with transaction.atomic(using=schema_editor.connection.alias):
            schema_editor.execute(EXTENSION)
            schema_editor.execute(SEARCH)
    except DatabaseError as error:
        print(
            f"\n  The search of leads works without the extension pg_trgm, but reads every lead. ({error})\n"
            f"  Have a superuser of the database say: {EXTENSION}; {SEARCH};"
        )


def drop_indexes(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("DROP INDEX IF EXISTS lead_search")
        schema_editor.execute("DROP INDEX IF EXISTS lead_tier")


class Migration(migrations.Migration):
    dependencies = [("leads", "0002_import_job"), ("runs", "0012_lists")]

    operations = [
        migrations.AddIndex(
            model_name="lead", index=models.Index(fields=["source", "department"], name="lead_by_source")
        ),
        migrations.AddIndex(
            model_name="lead", index=models.Index(fields=["department", "name", "item"], name="lead_by_name")
        ),
        migrations.RunPython(make_indexes, drop_indexes),
    ]
