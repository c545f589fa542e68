"""What the simulated sales agents understand: word lists and patterns over the data of one request. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agents.simulator.answers import Question

FREE_MAIL = frozenset({"gmail", "googlemail", "yahoo", "hotmail", "outlook", "gmx", "icloud", "proton", "aol"})

_ORDERS = re.compile(
    r"ignore (all |the |any )*(previous|prior|above)|system prompt|\bsystem\s*:|\"role\"|you are now"
    r"|classify (this|me)|score (of )?100|tier\s*=|\bbcc\b|reveal your|</?data",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?;。！？])\s+|\n+")
_CATEGORIES = (
    (
        "spam",
        r"backlink|first page on google|seo\b.*guarant|casino|\bbtc\b|bitcoin|crypto|you are the winner"
        r"|wallet|loan at|earn \$|click here|viagra",
    ),
    ("job_application", r"\bapply for|application for|my (cv|résumé|resume)\b|vacancy|bewerb|internship"),
    (
        "vendor_pitch",
        r"our agency|we help (\w+ )?companies like yours|meetings a month|outsourc|our services include",
    ),
    ("student", r"\bthesis\b|dissertation|homework|university project|semester"),
    ("other", r"press question|journalist|password|test message|copy of (my|our) invoice"),
)
_SCRIPTS = (
    ("el", "[\u0370-\u03ff]"),
    ("ja", "[\u3040-\u30ff]"),
    ("ko", "[\uac00-\ud7af]"),
    ("zh", "[\u4e00-\u9fff]"),
    ("ar", "[\u0600-\u06ff]"),
    ("he", "[\u0590-\u05ff]"),
    ("uk", "[іїєґІЇЄҐ]"),
)
_COMMON_WORDS = {
    "de": "wir und ist nicht mit für bitten guten haben rund",
    "fr": "nous et est pour avec vous bonjour merci une environ",
    "es": "hola el los pagamos con para por necesitamos las",
    "it": "buongiorno siamo gli per con una della sono",
    "pt": "bom dia um de como gostava vocês uma não",
    "nl": "wij een het niet voor graag met",
    "sv": "och vi att för hej inte",
    "da": "og vi det ikke hej til",
}
_COUNTRIES = {
    "austria": "AT", "belgium": "BE", "brazil": "BR", "bulgaria": "BG", "canada": "CA", "czechia": "CZ",
    "denmark": "DK", "egypt": "EG", "finland": "FI", "france": "FR", "germany": "DE", "ghana": "GH",
    "greece": "GR", "india": "IN", "ireland": "IE", "italy": "IT", "japan": "JP", "mexico": "MX",
    "netherlands": "NL", "norway": "NO", "poland": "PL", "portugal": "PT", "spain": "ES", "sweden": "SE",
    "switzerland": "CH", "uk": "GB", "ukraine": "UA", "united arab emirates": "AE", "united kingdom": "GB",
    "united states": "US", "usa": "US",
}  # fmt: skip
_OUTSIDE_PROFILE = frozenset({"AE", "BR", "EG", "GH", "IN", "JP", "MX", "CN", "AU", "ZA"})

_SENIOR = re.compile(
    r"\b(vp|head|chief|c[efot]o|founder|owner|director|directrice|directeur|directora|dyrektor|leiter)\b"
    r"|president|geschäftsführer|daglig leder|responsabile|部長",
    re.IGNORECASE,
)
_MIDDLE = re.compile(r"manager|\blead\b|gestor|vedoucí|teamleiter|мениджър|مدير|purchas", re.IGNORECASE)
_TOPIC = re.compile(
    r"invoice|surcharge|freight|billed|factur|fattur|frachtrechnung|rechnung|flete|fret|τιμολ|фактур|рахунк|счет"
    r"|運賃|請求|فواتير",
    re.IGNORECASE,
)
_VOLUME = re.compile(
    r"\d[\d.,\u00a0 ]*\s*(chilled )?(shipments|pallets|parcels|invoices|consignments|sendungen|envois|envíos"
    r"|αποστολ|перевезень|件)",
    re.IGNORECASE,
)
_DATE = re.compile(
    r"\b(this|next) (week|month|quarter)|end of (this|the) quarter|\bby (march|may|june|september)|bis märz"
    r"|mois de juin|este trimestre|before the end|μάιο|цього кварталу|来月",
    re.IGNORECASE,
)


def text(mapping: Mapping[str, Any], name: str) -> str:
    """A field as text, empty where it is missing."""
    value = mapping.get(name)
    return str(value).strip() if value not in (None, [], {}) else ""


def setting(question: Question, name: str) -> str:
    """A department setting as the agent was told it: the section ``## Name`` of the prompt, else empty."""
    match = re.search(rf"^## {re.escape(name)}\n(.*?)(?=\n+## |\Z)", question.system, re.DOTALL | re.MULTILINE)
    return match[1].strip() if match else ""


def company_facts(question: Question) -> list[dict[str, str]]:
    """The department's own facts, ``[{"statement", "source"}]``."""
    found = []
    for line in setting(question, "Company facts").splitlines():
        fact, separator, source = line.removeprefix("- fact: ").rpartition("; source: ")
        if separator:
            found.append({"statement": fact.strip(), "source": source.strip()})
    return found


def mails(question: Question, direction: str) -> list[Mapping[str, Any]]:
    """The mails of the conversation that were ``received`` or ``sent``, oldest first."""
    messages = (question.conversation or {}).get("messages") or []
    return [m for m in messages if isinstance(m, Mapping) and m.get("direction") == direction]


def attribute(item: Mapping[str, Any], word: str) -> str:
    """The first attribute whose name contains ``word``, for example ``employees``; empty if there is none."""
    attributes = item.get("attributes")
    if not isinstance(attributes, Mapping):
        return ""
    return next((text(attributes, key) for key in attributes if word in str(key).casefold()), "")


def employees(item: Mapping[str, Any]) -> int | None:
    """How many people work there, None if the record does not say."""
    digits = re.sub(r"[^\d]", "", attribute(item, "employees").split("-")[0])
    return int(digits[:9]) if digits else None


def own_words(item: Mapping[str, Any]) -> tuple[str, bool]:
    """The message without sentences that give orders to a machine, and whether there were any."""
    message = text(item, "message")
    sentences = [s for s in _SENTENCE.split(message) if s.strip()]
    kept = [s for s in sentences if not _ORDERS.search(s)]
    return " ".join(kept), len(kept) < len(sentences)


def category(item: Mapping[str, Any]) -> str:
    """One of the categories of ``Intake``."""
    message, has_orders = own_words(item)
    if has_orders and not message:
        return "spam"
    everything = f"{message} {text(item, 'title')}".casefold()
    for name, pattern in _CATEGORIES:
        if re.search(pattern, everything):
            return name
    return "student" if text(item, "title").casefold() == "student" else "lead"


def language(message: str) -> str:
    """ISO 639 code of the language, by script, else by common words; English if nothing tells."""
    for code, pattern in _SCRIPTS:
        if re.search(pattern, message):
            return code
    if re.search("[\u0400-\u04ff]", message):
        return "bg" if "ъ" in message or "щ" in message or "Здравейте" in message else "ru"
    words = set(re.findall(r"[^\W\d_]+", message.casefold()))
    hits = {code: len(words & set(common.split())) for code, common in _COMMON_WORDS.items()}
    best = max(hits, key=lambda code: hits[code])
    return best if hits[best] >= 2 else "en"


def country(item: Mapping[str, Any]) -> str:
    """ISO 3166 alpha-2 code from the record, else from the mail domain; empty if neither names one."""
    named = text(item, "country").casefold()
    if named in _COUNTRIES:
        return _COUNTRIES[named]
    if re.fullmatch("[a-z]{2}", named):
        return named.upper()
    ending = text(item, "email").rpartition(".")[2].casefold()
    return ending.upper() if ending.upper() in _COUNTRIES.values() else ""


def is_in_region(item: Mapping[str, Any]) -> bool:
    """Whether the country is known and fits the profile."""
    code = country(item)
    return bool(code) and code not in _OUTSIDE_PROFILE


def is_free_mail(item: Mapping[str, Any]) -> bool:
    """Whether the address is at a provider for private people."""
    return text(item, "email").rpartition("@")[2].split(".")[0].casefold() in FREE_MAIL


def influence(item: Mapping[str, Any]) -> int:
    """Points of 25 for the person's place in the company."""
    title = text(item, "title")
    if not title:
        return 0
    return 25 if _SENIOR.search(title) else 15 if _MIDDLE.search(title) else 5


def need(message: str) -> dict[str, int]:
    """Points for what the message says, ``{reason: points}``, together at most 35."""
    found = {
        "freight invoices are the problem": (12, _TOPIC),
        "volume named": (12, _VOLUME),
        "date named": (11, _DATE),
    }
    return {reason: points for reason, (points, pattern) in found.items() if pattern.search(message)}
