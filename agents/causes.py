"""Why an attempt did not bring an output, in the words that pages show."""

from __future__ import annotations

from django.db import models


class Cause(models.TextChoices):
    """What went wrong with a call or a run. What follows from each is decided in ``runs.executor``."""

    NONE = "", "nothing went wrong"
    TRANSIENT = "transient", "connection or server trouble"
    TIMEOUT = "timeout", "no answer in time"
    RATE_LIMITED = "rate_limited", "rate limit reached"
    OVERLOADED = "overloaded", "API overloaded"
    INVALID = "invalid", "answer does not fit the schema"
    TRUNCATED = "truncated", "answer cut off"
    REFUSAL = "refusal", "the model refused"
    REQUEST = "request", "request refused by the API"
    ACCOUNT = "account", "key, permission or billing"
    LOST = "lost", "worker lost"
    TOOLS = "tools", "too many tool calls"
    INTERNAL = "internal", "error in Kontor"
    CUT_OFF = "cut_off", "closed before its end"
