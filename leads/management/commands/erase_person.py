from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from leads.erasing import erase_lead, find_leads, mentioned_by
from runs.addresses import normalise_email
from runs.erasure import forget_address


class Command(BaseCommand):
    """Erases a person wherever they are a lead, and keeps the address as a hash that nobody writes to."""

    help = "Erase the person with this e-mail address from every department. Nobody can take it back."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("address", help="the person's e-mail address")
        parser.add_argument("--reason", default="", help="why, for the record, without naming the person")
        parser.add_argument("--yes", action="store_true", help="do not ask for the address again")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            address = normalise_email(options["address"].strip())
        except ValueError as error:
            raise CommandError(f"{options['address']!r} is no e-mail address: {error}") from error
        leads = find_leads(address)
        for lead in leads:
            self.stdout.write(f"Lead {lead.pk} of {lead.department}: everything but its costs and counts is erased.")
        if not leads:
            self.stdout.write("No lead has this address. It is suppressed, and taken out of what names it elsewhere.")
        if not options["yes"] and input("Type the address again to go on: ").strip() != options["address"].strip():
            raise CommandError("Nothing was erased: this is another address.")
        refused = [
            f"Lead {lead.pk} of {lead.department}: {done.reason}"
            for lead in leads
            if not (done := erase_lead(lead=lead, user=None, reason=options["reason"]))
        ]
        if refused:
            raise CommandError(" ".join(["Not everything was erased.", *refused]))
        forget_address(address)
        self.stdout.write("Erased. A backup still holds the person: run this again after restoring one.")
        for lead in mentioned_by(address):
            self.stdout.write(
                f"The address also stands in what is kept of lead {lead.pk}, who is somebody else. Look there."
            )
