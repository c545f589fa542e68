"""Takes secrets out of what leaves Kontor for somebody's eyes: exports, above all. Pure but for ``known_secrets``.

Three nets, because each has holes: values that are known to be secret, forms that only secrets have, and the names
of fields that hold them.
"""

from __future__ import annotations

import html
import json
import os
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from django.conf import settings

from agents.models import Department
from runs.models import Channel

GONE = "[secret]"
SHORTEST = 6
"""A shorter value is a word that may stand anywhere."""
LEAST_LEFT = 8
"""So much of a secret is left at least where a text was cut amid it; less is of no use."""
_SECRET_NAME = re.compile(r"(KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|WEBHOOK|DSN|PING_URL|HEADERS)", re.IGNORECASE)
_SECRET_FIELD = re.compile(
    r"(^|[_\-. ])(pass(word|wd|phrase)?|secret|token|key[_\-]?secret|(api|private|secret|access)[_\-]?key|"
    r"authorization|cookie|set-cookie|session(id|[_\-]?key)?|credentials?|csrfmiddlewaretoken|x-api-key)$",
    re.IGNORECASE,
)
_FORMS = (
    re.compile(r"sk-[A-Za-z0-9_\-]{12,}"),
    re.compile(r"\b(?:whsec|xox[abeoprs]|gh[opsu]|glpat|rk_live|sk_live)[_\-][A-Za-z0-9_\-+/=]{8,}"),
    re.compile(r"\b(?:AKIA[0-9A-Z]{16}\b|AIza[0-9A-Za-z_\-]{30,}|github_pat_\w{20,}|SG\.[\w\-]{16,}\.[\w\-]{16,})"),
    re.compile(r"\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{4,}"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"https?://hooks\.slack\.com/\S+"),
)
# What a client of a mail server says when it signs in; servers repeat a line that they do not take.
_AUTH = re.compile(r"\b(AUTH (?:PLAIN|LOGIN|XOAUTH2|CRAM-MD5))\s+[A-Za-z0-9+/=]{4,}", re.IGNORECASE)
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/\-]{8,}=*", re.IGNORECASE)
_IN_URL = re.compile(r"(?<=://)[^/\s:@\"']*:[^/\s\"']+(?=@)")
# In an address, a cookie, or JSON inside a text. What stands before the name does not matter: csrftoken, access_token.
_NAMED = re.compile(
    r"(?i)((?:pass(?:word|wd|phrase)|secret(?:[_-]?key)?|token|api[_-]?key|signature|session(?:[_-]?(?:id|key))?)"
    r"(?:=|\\?[\"']\s*:\s*\\?[\"']))[^&\s\"']+"
)
# A header, or what a person or a library writes of one.
_HEADER = re.compile(
    r"(?i)(\b(?:x-api-key|(?:proxy-)?authorization|pass(?:word|wd|phrase))\\?[\"']?\s*:\s*\\?[\"']?"
    r"(?:(?:basic|bearer|token|digest)\s+)?)[^\s\"',;\\]+"
)
_COOKIES = re.compile(r"(?i)(\b(?:set-)?cookie\\?[\"']?\s*[:=]\s*\\?[\"']?)[^\s=;,\"']+=[^\r\n\"']*")


class Redactor:
    """Takes these values, and whatever looks like a secret, out of text and JSON."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._whole = [value for value in values if len(value) >= SHORTEST]
        # The longest first: one may be the beginning of another.
        self._values = sorted({each for value in self._whole for each in _spellings(value)}, key=len, reverse=True)

    def text(self, text: str) -> str:
        """The text without secrets."""
        for value in self._values:
            text = text.replace(value, GONE)
        text = self._without_rest(text)
        for form in _FORMS:
            text = form.sub(GONE, text)
        for named in (_AUTH, _BEARER):
            text = named.sub(rf"\1 {GONE}", text)
        text = _IN_URL.sub(GONE, text)
        for named in (_COOKIES, _NAMED, _HEADER):
            text = named.sub(rf"\1{GONE}", text)
        return text

    def _without_rest(self, text: str) -> str:
        """Without the beginning of a secret at the end: errors are cut at so many characters."""
        end = text.rstrip("….")
        for value in self._whole:
            at = end.rfind(value[:LEAST_LEFT], max(0, len(end) - len(value)))
            if at >= 0 and value.startswith(end[at:]):
                return f"{end[:at]}{GONE}"
        return text

    def value(self, value: Any, name: str = "") -> Any:
        """JSON without secrets; ``name`` is that of the field it stands in. Numbers are never secrets."""
        if isinstance(value, Mapping):
            # What stands in a field of this name is secret, whatever the names inside.
            inside = {key: name if _is_secret_field(name) else str(key) for key in value}
            return {self.text(str(key)): self.value(each, inside[key]) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(each, name) for each in value]
        if isinstance(value, str):
            return GONE if value and _is_secret_field(name) else self.text(value)
        return value


def _is_secret_field(name: str) -> bool:
    """Whether a field of this name holds a secret, ``accessToken`` as well as ``access_token``."""
    return bool(_SECRET_FIELD.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)))


def _spellings(value: str) -> Iterator[str]:
    """How a secret stands in a text: as it is, in an address, in HTML, in JSON, in JSON within JSON, in base64."""
    escaped = json.dumps(value)[1:-1]
    yield from (value, quote(value), quote(value, safe=""), html.escape(value))
    yield from (repr(value)[1:-1], escaped, json.dumps(escaped)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1])
    for before in range(3):
        # What stands before it, a name for example, moves it within the groups of three bytes; those at the ends of
        # which others have a share are left out.
        coded = b64encode(b"\0" * before + value.encode()).decode().rstrip("=")
        whole = coded[(before * 8 + 5) // 6 : (before + len(value.encode())) * 8 // 6]
        if len(whole) >= LEAST_LEFT:
            yield from (whole, whole.replace("+", "-").replace("/", "_"))


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
