"""Fixtures that every test may use: a department with its agents, a simulator, people."""

from __future__ import annotations

import os

os.environ.setdefault("SQLITE_SYNCHRONOUS", "OFF")
os.environ.setdefault("ANTHROPIC_API_KEY", "test-key")
