from django.db import migrations

TABLE = "agents_soul"
NAME = "agents_soul_never_changes"
SENTENCE = "A published SOUL never changes."
COLUMNS = ("agent_id", "number", "identity", "responsibilities", "prohibitions")

# The ORM refuses already; this is for raw SQL and for mistakes. Deleting stays possible, because a department
# that never ran can be deleted with all that belongs to it; runs protect the SOULs they used.
# A later migration that alters this table on SQLite must make the trigger again (Django rebuilds the table).
_CHANGES = " OR ".join(f"NEW.{name} IS DISTINCT FROM OLD.{name}" for name in COLUMNS)
WHEN = f"OLD.status <> 'draft' AND (NEW.status = 'draft' OR {_CHANGES})"

SQLITE = [
    f"CREATE TRIGGER {NAME} BEFORE UPDATE ON {TABLE} WHEN {WHEN.replace('IS DISTINCT FROM', 'IS NOT')} "
    f"BEGIN SELECT RAISE(ABORT, '{SENTENCE}'); END"
]
POSTGRESQL = [
    f"CREATE FUNCTION {NAME}() RETURNS trigger LANGUAGE plpgsql AS "
    f"$$ BEGIN RAISE check_violation USING MESSAGE = '{SENTENCE}'; END $$",
    f"CREATE TRIGGER {NAME} BEFORE UPDATE ON {TABLE} FOR EACH ROW WHEN ({WHEN}) EXECUTE FUNCTION {NAME}()",
]


def make_trigger(apps, schema_editor):
    vendor = schema_editor.connection.vendor
    for statement in SQLITE if vendor == "sqlite" else POSTGRESQL:
        schema_editor.execute(statement, params=None)


def drop_trigger(apps, schema_editor):
    if schema_editor.connection.vendor == "sqlite":
        schema_editor.execute(f"DROP TRIGGER IF EXISTS {NAME}", params=None)
    else:
        schema_editor.execute(f"DROP TRIGGER IF EXISTS {NAME} ON {TABLE}", params=None)
        schema_editor.execute(f"DROP FUNCTION IF EXISTS {NAME}()", params=None)


class Migration(migrations.Migration):
    dependencies = [("agents", "0002_knowledge")]

    operations = [migrations.RunPython(make_trigger, drop_trigger)]
