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
from urllib.parse import unquote, urlsplit

from django.conf import settings

from agents.models import Department
from runs.variables import variables_used

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
# What a client of a mail server says when it signs in; servers repeat a line that they do not take. A word in lower
# case is none: "AUTH LOGIN extension not supported", "basic authentication is disabled".
_AUTH = re.compile(r"\b(AUTH (?:PLAIN|LOGIN|XOAUTH2|CRAM-MD5))\s+(?=[a-z]*[A-Z0-9+/=])[A-Za-z0-9+/=]{8,}")
_BEARER = re.compile(
    r"\b(Bearer|Basic)\s+(?-i:(?=[a-z.\-]*[A-Z0-9_~+/=]))[A-Za-z0-9._~+/\-]{8,}=*",
    re.IGNORECASE,
)
_IN_URL = re.compile(r"(?<=://)[^/\s:@\"']*:[^/\s\"']+(?=@)")
_QUOTE = r"(?P<quote>\\?(?P<mark>[\"']))"
# To the closing quote or the end of the line; a text may be cut before it. A quote within is escaped once in JSON,
# three times in JSON within JSON. Nothing has to follow, so that no text makes it try again.
_TO_QUOTE = r"(?:[^\\\n\"']++|(?!(?P=quote)|(?P=mark))(?:\\\\\\.|\\.|[^\\\n]))++"
# In an address, a cookie, or JSON inside a text. What stands before the name does not matter: csrftoken, access_token.
_NAMED = re.compile(
    r"(?i)((?:pass(?:word|wd|phrase)|secret(?:[_-]?key)?|token|api[_-]?key|signature|session(?:[_-]?(?:id|key))?)"
    rf"(?:=|\\?[\"']\s*:\s*(?=\\?[\"'])){_QUOTE}?)(?(quote){_TO_QUOTE}|(?!\\?[\"'])[^&\s\"']+)"
)
# A header, or what a person or a library writes of one.
_HEADER = re.compile(
    rf"(?i)(\b(?:x-api-key|(?:proxy-)?authorization|pass(?:word|wd|phrase))\\?[\"']?\s*:\s*{_QUOTE}?"
    rf"(?:(?:basic|bearer|token|digest)\s+)?)(?(quote){_TO_QUOTE}|[^\s\"',;\\]+)"
)
_COOKIES = re.compile(r"(?i)(\b(?:set-)?cookie\\?[\"']?\s*[:=]\s*\\?[\"']?)[^\s=;,\"']+=[^\r\n\"']*")


class Redactor:
    """Takes these values, and whatever looks like a secret, out of text and JSON."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        # The longest first: one may be the beginning of another.
        self._whole = sorted({value for value in values if len(value) >= SHORTEST}, key=len, reverse=True)
        self._known = [(_in_any_escapes(value), sorted({*_spellings(value)})) for value in self._whole]

    def text(self, text: str) -> str:
        """The text without secrets."""
        for escaped, spellings in self._known:
            text = escaped.sub(GONE, text)
            for spelling in spellings:
                text = text.replace(spelling, GONE)
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
            # The same letters may come in it more than once.
            at = end.find(value[:LEAST_LEFT], max(0, len(end) - len(value)))
            while at >= 0 and not value.startswith(end[at:]):
                at = end.find(value[:LEAST_LEFT], at + 1)
            if at >= 0:
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


def _in_any_escapes(value: str) -> re.Pattern[str]:
    """A secret as it is, in an address or in HTML: ``/`` is ``%2F``, ``%2f``, ``&#47;`` or ``&#x2f;`` as well."""
    return re.compile("".join(letter if letter.isalnum() else _escapes(letter) for letter in value))


def _escapes(letter: str) -> str:
    percent = "".join(f"%{byte:02x}" for byte in letter.encode(errors="replace"))
    named = {html.escape(letter), "&apos;" if letter == "'" else letter, "+" if letter == " " else letter}
    numbered = f"{percent}|&#0*{ord(letter)};|&#x0*{ord(letter):x};"
    return f"(?:{'|'.join(map(re.escape, sorted(named)))}|(?i:{numbered}))"


def _spellings(value: str) -> Iterator[str]:
    """How else a secret stands in a text: in JSON, in JSON within JSON, in base64."""
    escaped = json.dumps(value)[1:-1]
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
    named |= variables_used(Department.objects.all())
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
