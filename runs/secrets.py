"""Takes secrets out of what leaves Kontor for somebody's eyes: exports, above all. Pure but for ``known_secrets``.

Three nets, because each has holes: values that are known to be secret, forms that only secrets have, and the names
of fields that hold them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from django.conf import settings

from agents.models import Department
from runs.models import Channel

GONE = "[secret]"
SHORTEST = 6
"""A shorter value is a word that may stand anywhere."""
_SECRET_NAME = re.compile(r"(KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|WEBHOOK|DSN|PING_URL|HEADERS)", re.IGNORECASE)
_SECRET_FIELD = re.compile(
    r"(^|[_\-. ])(pass(word|wd|phrase)?|secret|token|api[_\-]?key|key[_\-]?secret|private[_\-]?key|authorization|"
    r"cookie|set-cookie|session(id|[_\-]?key)?|credentials?|csrfmiddlewaretoken|x-api-key)$",
    re.IGNORECASE,
)
_FORMS = (
    re.compile(r"sk-[A-Za-z0-9_\-]{12,}"),
    re.compile(r"\b(?:whsec|xox[abeoprs]|gh[opsu]|glpat|rk_live|sk_live)[_\-][A-Za-z0-9_\-+/=]{8,}"),
    re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    re.compile(r"\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{4,}"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"https?://hooks\.slack\.com/\S+"),
)
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/\-]{8,}=*", re.IGNORECASE)
_IN_URL = re.compile(r"(?<=://)[^/\s:@\"']*:[^/\s@\"']+(?=@)")
# In an address, a cookie, or JSON inside a text. What stands before the name does not matter: csrftoken, access_token.
_NAMED = re.compile(
    r"(?i)((?:pass(?:word|wd|phrase)|secret(?:[_-]?key)?|token|api[_-]?key|signature|session(?:[_-]?(?:id|key))?)"
    r"(?:=|\\?[\"']\s*:\s*\\?[\"']))[^&\s\"']+"
)
_COOKIES = re.compile(r"(?i)(\b(?:set-)?cookie\\?[\"']?\s*[:=]\s*\\?[\"']?)[^\s=;,\"']+=[^\r\n\"']*")


class Redactor:
    """Takes these values, and whatever looks like a secret, out of text and JSON."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        found = {value for value in values if len(value) >= SHORTEST}
        # The longest first: one may be the beginning of another.
        self._values = sorted(found, key=len, reverse=True)

    def text(self, text: str) -> str:
        """The text without secrets."""
        for value in self._values:
            text = text.replace(value, GONE)
        for form in _FORMS:
            text = form.sub(GONE, text)
        text = _BEARER.sub(rf"\1 {GONE}", text)
        text = _IN_URL.sub(GONE, text)
        return _NAMED.sub(rf"\1{GONE}", _COOKIES.sub(rf"\1{GONE}", text))

    def value(self, value: Any, name: str = "") -> Any:
        """JSON without secrets; ``name`` is that of the field it stands in. Numbers are never secrets."""
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(each, str(key)) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(each, name) for each in value]
        if isinstance(value, str):
            return GONE if value and _SECRET_FIELD.search(name) else self.text(value)
        return value


def known_secrets(environ: Mapping[str, str] | None = None) -> set[str]:
    """Every value of the environment and the settings that is a secret, by its name or because a row names it."""
    environ = os.environ if environ is None else environ
    named = {name for name in environ if _SECRET_NAME.search(name)}
    named |= set(Department.objects.values_list("api_key_env", flat=True))
    named |= set(Department.objects.values_list("webhook_secret_env", flat=True))
    named |= set(Channel.objects.values_list("secret_env", flat=True))
    found = {environ.get(name, "") for name in named}
    found |= {password for value in environ.values() if (password := _password(value))}
    configured = (settings.SECRET_KEY, settings.SLACK_WEBHOOK_URL, settings.METRICS_TOKEN, settings.PING_URL)
    found |= {str(value) for value in (*configured, *settings.SECRET_KEY_FALLBACKS) if value}
    found |= {str(value) for base in settings.DATABASES.values() if (value := base.get("PASSWORD"))}
    found |= {str(value) for value in settings.ANYMAIL.values() if value}
    found.add(str(settings.EMAIL_HOST_PASSWORD or ""))
    return {value for value in found if len(value) >= SHORTEST}


def _password(value: str) -> str:
    """The password in an address such as that of a database or a mail server."""
    if "://" not in value or "@" not in value:
        return ""
    try:
        return unquote(urlsplit(value).password or "")
    except ValueError:
        return ""
