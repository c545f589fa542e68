"""Fills the demo's database. Every step leaves alone what is there already."""

from __future__ import annotations

import os
from io import StringIO
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError

from agents.models import Department, Member
from leads.models import Lead
from runs.models import Channel

SAMPLES = Path(settings.BASE_DIR) / "leads" / "samples"
DEPARTMENT = "sales"
USERNAME = "demo"
EMAIL = "demo@tallyport.example"
SENDER = "Mara Lindqvist <mara@tallyport.example>"
UNDO_SECONDS = 10
"""Long enough to try the undo, short enough to see the mail arrive in the mailbox."""


class Command(BaseCommand):
    help = "Prepare the demo: tables, department, the user demo (with DEMO_PASSWORD), documents, sample leads."

    requires_migrations_checks = False

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the steps in order; CommandError says which one cannot be done."""
        password = os.environ.get("DEMO_PASSWORD", "")
        if not password:
            raise CommandError("Set DEMO_PASSWORD to the password that the user demo shall have.")
        try:
            call_command("migrate", interactive=False, verbosity=0)
        except OperationalError as error:
            raise CommandError(f"The database cannot be used: {error}") from error
        # Its list of everything created tells an administrator much and somebody who tries the demo nothing.
        call_command("sync_departments", stdout=StringIO())
        department = Department.objects.get(slug=DEPARTMENT)
        keep_user(department, password)
        keep_channel(department)
        call_command("load_knowledge", SAMPLES / "knowledge", department=DEPARTMENT, verbosity=0)
        if Lead.objects.filter(department=department).exists():
            self.stdout.write(f"The leads that are there stay ({department.leads.count()}).")
            return
        call_command(
            "import_leads",
            SAMPLES / "leads.csv",
            department=DEPARTMENT,
            source="samples",
            verbosity=options["verbosity"],
        )


def keep_user(department: Department, password: str) -> User:
    """The superuser ``demo`` with this password, an administrator of the department."""
    user, is_new = User.objects.get_or_create(
        username=USERNAME, defaults={"is_staff": True, "is_superuser": True, "first_name": "Demo", "email": EMAIL}
    )
    # After demo.env was deleted the password is another one; a hash is not made anew without need.
    if is_new or not user.check_password(password):
        user.set_password(password)
        user.save(update_fields=["password"])
    Member.objects.get_or_create(department=department, user=user, defaults={"role": Member.Role.ADMINISTRATOR})
    return user


def keep_channel(department: Department) -> None:
    """A way out for mails, which the demo writes to files; one that somebody has set up stays."""
    Channel.objects.filter(department=department, kind="email", settings={}).update(
        settings={"sender": SENDER}, undo_seconds=UNDO_SECONDS, is_enabled=True
    )
