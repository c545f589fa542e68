"""What items have come to so far: as the log tells, and for those whose log is gone as they are now."""

from django.db import migrations

from agents.spec import kind

BATCH = 2_000


def fill(apps, schema_editor):
    Item, LogEntry = apps.get_model("runs", "Item"), apps.get_model("runs", "LogEntry")
    ItemOutcome = apps.get_model("runs", "ItemOutcome")
    for department in apps.get_model("agents", "Department").objects.all():
        try:
            outcomes = kind(department.kind).outcomes
        except LookupError:
            continue
        by_status = {}
        for name, statuses in outcomes.items():
            for status in statuses:
                by_status.setdefault(status, []).append(name)
        changes = LogEntry.objects.filter(department=department, kind="status", item__isnull=False).order_by("pk")
        rows = ((pk, at, data.get("to")) for pk, at, data in changes.values_list("item_id", "at", "data").iterator())
        _keep(ItemOutcome, department.pk, by_status, rows)
        # Second, so that what the log knows better stands.
        items = Item.objects.filter(department=department, status__in=by_status).order_by("pk")
        _keep(ItemOutcome, department.pk, by_status, items.values_list("pk", "changed_at", "status").iterator())


def _keep(model, department_id, by_status, rows):
    waiting = []
    for item_id, at, status in rows:
        for outcome in by_status.get(status, ()):
            waiting.append(model(department_id=department_id, item_id=item_id, outcome=outcome, at=at))
        if len(waiting) >= BATCH:
            model.objects.bulk_create(waiting, ignore_conflicts=True)
            waiting = []
    model.objects.bulk_create(waiting, ignore_conflicts=True)


class Migration(migrations.Migration):
    dependencies = [("runs", "0013_item_outcomes")]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop, elidable=True)]
