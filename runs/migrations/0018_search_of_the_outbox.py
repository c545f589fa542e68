from django.db import DatabaseError, migrations, transaction

# views.outbox: what a message is about and whom it goes to, searched for pieces of words; the expressions are those of
# "icontains".
EXTENSION = "CREATE EXTENSION IF NOT EXISTS pg_trgm"
INDEXES = (
    "CREATE INDEX item_title_search ON runs_item USING gin (UPPER(title::text) gin_trgm_ops)",
    "CREATE INDEX outbox_address_search ON runs_outboxmessage USING gin (UPPER(address::text) gin_trgm_ops)",
)


def make_indexes(apps, schema_editor):
    if schema_editor.connection.vendor != "postgresql":
        return
    try:
        with transaction.atomic(using=schema_editor.connection.alias):
            for statement in (EXTENSION, *INDEXES):
                schema_editor.execute(statement)
    except DatabaseError as error:
        print(
            f"\n  The search of the outbox works without the extension pg_trgm, but reads every message. ({error})\n"
            f"  Have a superuser of the database say: {'; '.join((EXTENSION, *INDEXES))};"
        )


def drop_indexes(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        for name in ("item_title_search", "outbox_address_search"):
            schema_editor.execute(f"DROP INDEX IF EXISTS {name}")


class Migration(migrations.Migration):
    dependencies = [("runs", "0017_items_that_are_paused")]

    operations = [migrations.RunPython(make_indexes, drop_indexes)]
