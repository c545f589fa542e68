#!/usr/bin/env python
"""Kontor's command line: ``python manage.py help`` lists the commands."""

import os
import sys


def main() -> None:
    """Run a command; a half-built environment gets a sentence instead of a traceback."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    try:
        from django.core.management import execute_from_command_line  # noqa: PLC0415 - its absence is the message
    except ImportError:
        sys.exit("Django is not installed in this Python. Run `make demo` once, then use .venv/bin/python.")
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
