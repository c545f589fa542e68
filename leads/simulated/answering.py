"""The simulated Reply Handler, Fact-Checker, Formatter and CRM Scribe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agents.simulator.answers import Question
from leads.simulated.reading import company_facts, mails, setting, text

_INTENTS = (
    (
        "out_of_office",
        r"out of (the )?office|automatic reply|auto-?reply|abwesenheit|on (annual |parental )?leave"
        r"|away until|absence du bureau",
    ),
    (
        "unsubscribe",
        r"unsubscribe|remove me|take me off|opt(ing)? ?out|stop (writing|mailing|e-?mailing|sending"
        r"|contacting)|(do not|don't|never) (write|contact|mail|email)|delete my (data|address)|no more mail"
        r"|abmelden|austragen|désinscri|désabonn|darme de baja|отпи[шс]|διαγραφ|配信停止|إلغاء الاشتراك",
    ),
    ("wrong_person", r"(not the|wrong) (right )?person|no longer (work|with)|left the company|my colleague"),
    (
        "not_now",
        r"not (right )?now|next year|no budget|later this year|in q[1-4]\b|after the summer|get back to you",
    ),
    (
        "objection",
        r"not interested|no interest|no,? thank|too expensive|already (have|use|work with)|not convinced",
    ),
    (
        "interested",
        r"interested|sounds good|let'?s talk|call me|book|demo|send (me |us )?(an |the )?offer|tell me more"
        r"|happy to (talk|meet)|meeting",
    ),
    ("question", r"\?"),
)
_SOON = re.compile(r"today|tomorrow|this week|asap|urgent|\b(mon|tues|wednes|thurs|fri)day|call me", re.IGNORECASE)
_ADVANCE = {
    "interested": "Shall we talk for 20 minutes this week, in the morning or late in the afternoon?",
    "question": "Does that answer it, or shall we go through it in a short call?",
    "objection": "That is fair. If one invoice ever makes you doubt, may I look at it for you?",
    "not_now": "Thank you for being clear. Shall I write again in three months?",
    "wrong_person": "Thank you for telling me. Who looks after freight invoices with you?",
    "other": "Thank you for your answer. What would be the most useful next step for you?",
}
_TOPICS = (
    (r"price|pricing|cost|expensive|budget|€|euro", ("euros", "free of charge")),
    (r"secur|gdpr|data|iso|privacy", ("iso", "gdpr", "stored")),
    (r"audit|start|begin|how does|how do", ("audit",)),
    (r"who else|reference|case|customer", ("found", "cut ")),
)
_FIELD_PATTERNS = (
    ("meeting_at", r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(?::\d{2})?(?:Z|[+-]\d{2}:\d{2})?"),
    ("deal_value", r"(?:[€$£]\s?\d[\d.,]*|\b\d[\d.,]*\s?(?:EUR|USD|GBP|euros|dollars)\b)"),
    ("phone", r"\+\d[\d ()-]{6,18}\d"),
)


def reply(question: Question) -> dict[str, Any]:
    """What the newest received message means, and the answer to it where one is needed."""
    message = _newest_received(question)
    body = unquoted(text(message, "body"))
    intent = _intent(f"{text(message, 'subject')}\n{body}", body)
    opt_out = intent == "unsubscribe"
    answer_needed = intent not in ("unsubscribe", "out_of_office")
    urgency = "high" if intent in ("interested", "question") and _SOON.search(body) else "normal"
    if intent in ("out_of_office", "not_now"):
        urgency = "low"
    answer: dict[str, Any] = {"subject": "", "body": "", "claims": []}
    if answer_needed:
        answer = _answer(question, text(message, "subject"), body, intent)
    return {
        "reasoning_summary": f"The newest message reads as {intent.replace('_', ' ')}."
        + ("" if answer_needed else " It gets no answer."),
        "intent": intent,
        "urgency": urgency,
        "opt_out": opt_out,
        "answer_needed": answer_needed,
        "confidence": "low" if intent == "other" else "high",
        **answer,
    }


def fact_check(question: Question) -> dict[str, Any]:
    """A claim is supported where research or the department's facts say the same."""
    known = [*company_facts(question), *(question.outputs.get("research", {}).get("facts") or [])]
    checks = [_check(claim, known) for claim in question.outputs.get("draft", {}).get("claims") or []]
    unsupported = sum(not check["supported"] for check in checks)
    return {
        "reasoning_summary": f"{len(checks)} claims checked, {unsupported} of them without support.",
        "checks": checks,
        "unsupported": unsupported,
    }


def email(question: Question) -> dict[str, Any]:
    """The draft without unsupported claims, in the house's form, within its limits, signed."""
    draft = question.outputs.get("draft", {})
    checks = question.outputs.get("fact_check", {}).get("checks") or []
    removed = [text(check, "claim") for check in checks if not check.get("supported")]
    body = text(draft, "body").replace("!", ".")
    for claim in removed:
        body = re.sub(rf" *{re.escape(claim.rstrip('.'))}\.?", "", body)
    signature = setting(question, "Signature")
    body = _within(_unsigned(body, signature), _limit(question, "Max body words", 140))
    subject = _cut(" ".join(text(draft, "subject").replace("!", "").split()), _limit(question, "Max subject chars", 60))
    return {
        "reasoning_summary": f"Signed and in house form; {len(removed)} unsupported claims taken out.",
        "subject": subject or "Freight invoices",
        "body": "\n\n".join(part for part in (body, signature) if part) or "Hello",
        "removed_claims": removed,
    }


def crm_update(question: Question) -> dict[str, Any]:
    """The stage a person has decided, and the fields for which a value was stated."""
    payload = (question.trigger or {}).get("payload") or {}
    said = " ".join(str(value) for value in payload.values() if isinstance(value, str | int | float))
    stage = _stage(payload, said)
    changes = [
        {"field": field, "value": match[0], "reason": "Stated in the decision"}
        for field, pattern in _FIELD_PATTERNS
        if (match := re.search(pattern, said))
    ]
    note = text(payload, "note") or text(payload, "reason") or text(payload, "text")
    if note:
        name = "close_reason" if stage == "lost" else "note"
        changes.append({"field": name, "value": note[:500], "reason": "The words of the decision"})
    elif stage == "unchanged":
        value = "The decision names no stage. Please say what was agreed."
        changes.append({"field": "note", "value": value, "reason": "The decision is unclear"})
    return {
        "reasoning_summary": f"The decision says {stage}; {len(changes)} fields follow from it.",
        "stage": stage,
        "changes": changes,
    }


def unquoted(body: str) -> str:
    """A mail without the older mail below it: lines with ``>`` and all that follows "On … wrote:"."""
    head = re.split(r"^(?:On .{5,200} wrote:|Am .{5,200} schrieb.*:|-{2,} ?Original Message.*)$", body, flags=re.M)[0]
    return "\n".join(line for line in head.splitlines() if not line.lstrip().startswith(">")).strip()


def _newest_received(question: Question) -> Mapping[str, Any]:
    received = mails(question, "received")
    if received:
        return received[-1]
    payload = (question.trigger or {}).get("payload") or {}
    return {"subject": text(payload, "subject"), "body": text(payload, "body") or text(payload, "text")}


def _intent(everything: str, body: str) -> str:
    for name, pattern in _INTENTS:
        # Only automatic replies are known by their subject; our own subject comes back in every reply.
        if re.search(pattern, everything if name == "out_of_office" else body, re.IGNORECASE):
            return name
    return "other"


def _answer(question: Question, subject: str, body: str, intent: str) -> dict[str, Any]:
    facts = company_facts(question)
    wanted = next((words for pattern, words in _TOPICS if re.search(pattern, body, re.IGNORECASE)), ())
    used = [f for f in facts if any(word in f["statement"].casefold() for word in wanted)][:2]
    if used:
        lines = "To your question: " + " ".join(f"{fact['statement'].rstrip('.')}." for fact in used)
    elif "?" in body:
        lines = "Your question goes to a colleague who knows this best and will answer you."
    else:
        lines = ""
    names = text(question.item, "name").split()
    thanks = "Thank you for your answer." if intent in ("interested", "question") else ""
    parts = [
        f"Hello {names[0]}," if names else "Hello,",
        thanks,
        lines,
        _ADVANCE[intent],
        setting(question, "Sender name"),
    ]
    old = re.sub(r"^(re: *)+", "", " ".join(subject.split()), flags=re.IGNORECASE)
    return {
        "subject": f"Re: {old or 'your message'}"[:160],
        "body": "\n\n".join(part for part in parts if part),
        "claims": [{"text": fact["statement"], "source": fact["source"]} for fact in used],
    }


def _check(claim: Mapping[str, Any], known: list[dict[str, Any]]) -> dict[str, Any]:
    said = text(claim, "text").rstrip(".").casefold()
    for fact in known:
        statement = text(fact, "statement").rstrip(".").casefold()
        if said and statement and (said in statement or statement in said):
            return {
                "claim": text(claim, "text"),
                "supported": True,
                "source": text(fact, "source"),
                "note": "",
            }
    given = text(claim, "source")
    note = f"{given} does not say this as far as research goes" if given else "No source is given and none was found"
    return {"claim": text(claim, "text") or "An empty claim", "supported": False, "source": "", "note": note}


def _unsigned(body: str, signature: str) -> str:
    """The body without the sender's name at its end, which the signature replaces."""
    name = signature.splitlines()[0].strip() if signature else ""
    body = body.rstrip()
    return body.removesuffix(name).rstrip() if name else body


def _within(body: str, words: int) -> str:
    """The body without its longest sentences until it fits; the greeting and the last paragraph stay."""
    paragraphs = body.split("\n\n")
    while len(" ".join(paragraphs).split()) > words and len(paragraphs) > 2:
        sentences = [(len(s), i, s) for i, p in enumerate(paragraphs[1:-1], 1) for s in re.split(r"(?<=[.?])\s+", p)]
        _, index, longest = max(sentences)
        paragraphs[index] = " ".join(paragraphs[index].replace(longest, "", 1).split())
        if not paragraphs[index]:
            del paragraphs[index]
    return "\n\n".join(paragraphs)


def _cut(line: str, limit: int) -> str:
    return line if len(line) <= limit else line[: limit + 1].rpartition(" ")[0] or line[:limit]


def _limit(question: Question, name: str, default: int) -> int:
    value = setting(question, name)
    return int(value) if value.isdecimal() and int(value) > 0 else default


def _stage(payload: Mapping[str, Any], said: str) -> str:
    for value in payload.values():
        if value in ("meeting", "won", "lost"):
            return str(value)
    for stage, pattern in (
        ("won", r"\b(won|signed|bought)\b"),
        ("lost", r"\b(lost|declined|rejected)\b"),
        (
            "meeting",
            r"\b(meeting|call|appointment)\b.*\b(agreed|booked|set|planned)\b|\bbooked a (call|meeting)\b",
        ),
    ):
        if re.search(pattern, said, re.IGNORECASE):
            return stage
    return "unchanged"
