"""``manage.py demo_users``: one person for each role, to see what each may do."""

from __future__ import annotations

import secrets
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser

from agents.models import Department, Member

PASSWORD_BYTES = 9


class Command(BaseCommand):
    help = "Make a person for each role of a department, for trying Kontor out, and print their passwords."

    def add_arguments(self, parser: CommandParser) -> None:
        """Which department, and what else is allowed."""
        parser.add_argument("--department", metavar="SLUG", help="Needed where there are several departments.")
        parser.add_argument("--new-passwords", action="store_true", help="Also for those who are there already.")
        parser.add_argument("--force", action="store_true", help="Although DEBUG is off.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make who is missing; who is there keeps their password, and gets the role back."""
        if not settings.DEBUG and not options["force"]:
            raise CommandError("These people are for trying out and DEBUG is off. --force makes them all the same.")
        department = _department(options["department"])
        for role in Member.Role.values:
            user, password = keep_person(department, role, is_new_password=options["new_passwords"])
            told = f"password {password}" if password else "keeps the password (--new-passwords gives another)"
            self.stdout.write(f"{user.username:<20} {told}")


def keep_person(department: Department, role: str, *, is_new_password: bool = False) -> tuple[User, str]:
    """The person who shows this role, as a member of the department, and the password if it was set just now."""
    user, is_new = User.objects.get_or_create(
        username=f"demo-{role}",
        defaults={"first_name": role.capitalize(), "is_staff": role == Member.Role.ADMINISTRATOR},
    )
    Member.objects.update_or_create(department=department, user=user, defaults={"role": role})
    if not (is_new or is_new_password):
        return user, ""
    password = secrets.token_urlsafe(PASSWORD_BYTES)
    user.set_password(password)
    user.save(update_fields=["password"])
    return user, password


def _department(slug: str | None) -> Department:
    departments = list(Department.objects.filter(slug=slug) if slug else Department.objects.all())
    if not departments:
        raise CommandError("There is no such department: run `manage.py sync_departments` first.")
    if len(departments) > 1:
        names = ", ".join(department.slug for department in departments)
        raise CommandError(f"There are several departments. Say --department and one of: {names}.")
    return departments[0]
