"""The simulated Researcher, Strategist, Writer and Follow-up Writer."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from agents.simulator.answers import Question
from leads.simulated.reading import attribute, company_facts, employees, mails, own_words, setting, text

Statement = dict[str, str]

_PASSAGE = re.compile(r"^\[([^\]\n]+#\d+(?:-\d+)?)\][^\n]*\n(.*?)(?=^\[[^\]\n]+#\d|\Z)", re.DOTALL | re.MULTILINE)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_LONG_WORD = re.compile(r"[^\W\d_]{4,}")


class Angle(NamedTuple):
    """One way to begin. ``topic`` stands in the subject, ``says`` is a sentence of the mail."""

    pattern: str
    topic: str
    says: str
    pains: tuple[str, ...]


_ANGLES = (
    Angle(
        r"surcharge",
        "fuel surcharges",
        "Fuel surcharges are where freight invoices go wrong most quietly: the table changes, nobody looks.",
        ("Surcharges are billed by an old table", "Contracts come up before the errors are known"),
    ),
    Angle(
        r"twice|double",
        "double billing",
        "An invoice that comes twice is easy to pay twice, above all when it has two numbers.",
        ("Shipments are paid twice",),
    ),
    Angle(
        r"hours|time\b|week checking|by hand|à la main|people|40時間|one week|accountant",
        "checking invoices by hand",
        "Checking freight invoices by hand takes days and still covers only a part of them.",
        ("Days of work every month", "Only a sample is checked"),
    ),
    Angle(
        r"price|pricing|cost|offer|angebot|προσφορά|presupuesto|quote",
        "a first audit",
        "The cheapest way to learn whether it pays is to look at invoices you have already paid.",
        ("Nobody knows what the errors cost",),
    ),
    Angle(
        r"",
        "freight invoices",
        "Companies that pay several carriers can rarely check every invoice, and the errors lie in the rest.",
        ("Probably only a part of the invoices is checked",),
    ),
)
_OPENINGS = (
    "Thank you for your message about {topic} at {company}",
    "Your message from {company} reached me, and {topic} is what we work on every day",
    "You wrote to us about {topic}; here is what I can say before I know more of {company}",
    "I have read what you wrote, and it seems to me that {topic} is where to begin at {company}",
    "Good that you wrote: {topic} can be looked at without much effort for {company}",
)
_STEPS = {
    "Hot": ("Would a call of 20 minutes suit you, one morning or late afternoon this week?",
            "May I show you this in 20 minutes, tomorrow morning or the day after in the afternoon?"),
    "Warm": ("Shall I send you two pages on how the first audit works?",
             "Would it help if we checked ten of your invoices as an example?"),
}  # fmt: skip


def research(question: Question) -> dict[str, Any]:
    """Facts from record, website and documents, each with its source; the rest is named unknown."""
    item = question.item
    company = text(item, "company") or "The company"
    site, passages, failures = _read_tools(question)
    facts = [
        *_record_facts(item, company),
        *_site_facts(site, text(item, "website")),
        *_cases(passages, item),
    ]
    unknowns = ["Invoices a month: not stated"]
    if not text(item, "website"):
        unknowns.append("What they say about themselves: no website known")
    elif not site:
        why = failures[0] if failures else "it was not read"
        unknowns.append(f"What their website says: {why[:160]}")
    if not passages:
        unknowns.append("A case from their industry: no document found")
    return {
        "reasoning_summary": f"Facts with a source: {len(facts)}. Open questions: {len(unknowns)}.",
        "company_summary": _summary(site, company),
        "facts": facts[:11],
        "unknowns": unknowns,
    }


def strategy(question: Question) -> dict[str, Any]:
    """One angle from the person's own words, proof from our facts, a step that fits the tier."""
    message, _ = own_words(question.item)
    angle = _angle(message)
    found = question.outputs.get("research", {}).get("facts") or []
    record = " ".join(text(fact, "statement") for fact in found if text(fact, "source") == "lead record")
    known = [*company_facts(question), *({**fact} for fact in found if "#" in text(fact, "source"))]
    ranked = sorted(known, key=lambda fact: -_fit(fact, record, f"{angle.topic} {message}"))
    tier = text(question.outputs.get("qualification", {}), "tier")
    basis = "the message" if message else "the record, without a message"
    return {
        "reasoning_summary": f"Angle from {basis}, step for a {tier or 'Warm'} lead.",
        "angle": angle.says,
        "pains": list(angle.pains),
        "proof_points": _distinct(ranked)[:2],
        "call_to_action": question.rng.choice(_STEPS.get(tier, _STEPS["Warm"])),
    }


def draft(question: Question) -> dict[str, Any]:
    """A first mail that follows the strategy. Now and then it holds a claim without a source."""
    item, plan = question.item, question.outputs.get("strategy", {})
    company = text(item, "company") or "your company"
    angle = _angle(own_words(item)[0])
    proof = [dict(point) for point in plan.get("proof_points") or []]
    if any("short" in str(note).casefold() for note in question.notes):
        proof = proof[:1]
    claims = [{"text": point["statement"], "source": point["source"]} for point in proof]
    if not question.notes and question.rng.random() < 0.15:
        claims.append({"text": "Most of our customers see the first credit note within a month", "source": ""})
    body = [
        _greeting(item),
        _opening(item, company, angle),
        " ".join([text(plan, "angle") or angle.says, *(_sentence(claim["text"]) for claim in claims)]),
        text(plan, "call_to_action") or question.rng.choice(_STEPS["Warm"]),
        setting(question, "Sender name"),
    ]
    heeded = " Changed as the reviewer asked." if question.notes else ""
    return {
        "reasoning_summary": f"One idea, one question, claims: {len(claims)}.{heeded}",
        "subject": _subject(question, angle, company),
        "body": "\n\n".join(part for part in body if part),
        "claims": claims,
    }


def follow_up(question: Question) -> dict[str, Any]:
    """A shorter mail in the same thread with a point that no earlier mail made."""
    item, plan = question.item, question.outputs.get("strategy", {})
    sent = mails(question, "sent")
    earlier = " ".join(text(mail, "body") for mail in sent)
    known = [*(plan.get("proof_points") or []), *(question.outputs.get("research", {}).get("facts") or [])]
    fresh = [f for f in known if "#" in text(f, "source") and text(f, "statement").rstrip(".") not in earlier][:1]
    company = text(item, "company") or "your company"
    subject = text(sent[-1], "subject") if sent else f"Freight invoices at {company}"
    claims = [{"text": fact["statement"], "source": fact["source"]} for fact in fresh]
    if claims:
        point = f"One thing I did not mention: {claims[0]['text'][:1]}{_sentence(claims[0]['text'][1:])}"
    else:
        point = "A smaller step is possible too: send me one invoice you doubt, and I will tell you what I see."
    number = (question.trigger or {}).get("payload", {}).get("number")
    is_last = isinstance(number, int) and number >= len(setting(question, "Cadence").splitlines())
    closing = "I will not write again. If the topic comes back, this address stays open." if is_last else ""
    ask = f"Is checking freight invoices a topic at {company} this year?"
    body = [_greeting(item), point, ask, closing, setting(question, "Sender name")]
    return {
        "reasoning_summary": f"{'A new point' if claims else 'A smaller step'}, one question"
        f"{', and the last mail says so' if is_last else ''}.",
        "subject": f"Re: {re.sub(r'^(re: *)+', '', subject, flags=re.IGNORECASE)}"[:160],
        "body": "\n\n".join(part for part in body if part),
        "claims": claims,
    }


def _read_tools(question: Question) -> tuple[str, list[tuple[str, str]], list[str]]:
    """``(text of the website, [(reference, passage)], sentences that say why a tool brought nothing)``."""
    site, passages, failures = "", [], []
    for result in question.tool_results:
        found = _PASSAGE.findall(result)
        if found:
            passages += [(reference, " ".join(body.split())) for reference, body in found]
        elif len(result) > 300 and not site:
            site = " ".join(line for line in result.splitlines() if not line.startswith(("#", "http")))
        elif "passage" not in result and "document" not in result:
            failures.append(" ".join(result.split()))
    return site, passages, failures


def _record_facts(item: Mapping[str, Any], company: str) -> list[Statement]:
    size = employees(item)
    known = [
        attribute(item, "industry"),
        f"{size} employees" if size is not None else "",
        text(item, "country"),
    ]
    told = ", ".join(part for part in known if part)
    return [{"statement": f"{company}: {told}", "source": "lead record"}] if told else []


def _site_facts(site: str, website: str) -> list[Statement]:
    sentences = [s.strip() for s in _SENTENCE.split(site) if 40 <= len(s.strip()) <= 220]
    return [{"statement": sentence, "source": website} for sentence in sentences[:3]]


def _summary(site: str, company: str) -> str:
    first = next((s for s in _SENTENCE.split(site) if 40 <= len(s) <= 220), "")
    return f"They say: {first}" if first else f"{company}, known from the record only."


def _cases(passages: Sequence[tuple[str, str]], item: Mapping[str, Any]) -> list[Statement]:
    """At most two sentences with a figure, those nearest to the company's industry first."""
    found = [
        {"statement": sentence.rstrip("."), "source": reference}
        for reference, body in passages
        for sentence in _SENTENCE.split(body)
        if re.search(r"\d", sentence) and 30 <= len(sentence) <= 200
    ]
    about = f"{attribute(item, 'industry')} {text(item, 'title')}"
    return sorted(found, key=lambda fact: -_relevance(f"{fact['source']} {fact['statement']}", about))[:2]


def _fit(fact: Mapping[str, Any], record: str, wish: str) -> int:
    """The same industry counts more than any words of the wish."""
    statement = f"{text(fact, 'source')} {text(fact, 'statement')}"
    return 9 * _relevance(statement, record) + _relevance(statement, wish)


def _relevance(statement: str, about: str) -> int:
    words = {word.casefold()[:4] for word in _LONG_WORD.findall(about)}
    return len(words & {word.casefold()[:4] for word in _LONG_WORD.findall(statement)})


def _distinct(facts: Sequence[Mapping[str, Any]]) -> list[Statement]:
    seen = {text(fact, "statement").casefold(): fact for fact in reversed(facts) if text(fact, "statement")}
    return [{"statement": text(f, "statement"), "source": text(f, "source")} for f in reversed(seen.values())]


def _angle(message: str) -> Angle:
    return next(angle for angle in _ANGLES if re.search(angle.pattern, message, re.IGNORECASE))


def _greeting(item: Mapping[str, Any]) -> str:
    names = text(item, "name").split()
    return f"Hello {names[0].title() if names[0].isupper() else names[0]}," if names else "Hello,"


def _opening(item: Mapping[str, Any], company: str, angle: Angle) -> str:
    if own_words(item)[0]:
        # Chosen by the company, so that the rest of the mail stays what the seed makes it.
        form = _OPENINGS[zlib.crc32(company.encode()) % len(_OPENINGS)]
        return _sentence(form.format(topic=angle.topic, company=company))
    return f"I am writing because {company} may pay more than one carrier, and we work on just that."


def _subject(question: Question, angle: Angle, company: str) -> str:
    form = question.rng.choice(("{topic} at {company}", "{company} and {topic}", "{topic}: a first step for {company}"))
    subject = form.format(topic=angle.topic, company=company)
    if len(subject) > 60:
        subject = angle.topic
    return subject[:1].upper() + subject[1:]


def _sentence(statement: str) -> str:
    return statement if statement.endswith((".", "!", "?")) else f"{statement}."
