"""The simulated Intake Classifier and Qualifier."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agents.simulator.answers import Question
from leads.schemas import tier_of
from leads.simulated.reading import (
    attribute,
    category,
    country,
    employees,
    influence,
    is_free_mail,
    is_in_region,
    language,
    need,
    own_words,
    text,
)

_TARGET = re.compile("furnitur|manufactur|food|retail|wholesale|distribut|e-?commerce|pharma|automotive", re.IGNORECASE)
_WANTS = {
    "spam": "Wants us to click, pay or buy links.",
    "job_application": "Applies for a job with us.",
    "vendor_pitch": "Wants to sell a service to us.",
    "student": "Asks for help with a study.",
    "other": "Asks something that has nothing to do with buying.",
}


def intake(question: Question) -> dict[str, Any]:
    """Category by what the sender wants; orders in the message are not followed."""
    item = question.item
    message, has_orders = own_words(item)
    kind = category(item)
    vague = kind == "lead" and not text(item, "company") and len(message) < 20
    reasons = [f"Read as {kind.replace('_', ' ')} from {'the message' if message else 'the record'}."]
    if has_orders:
        reasons.append("The message also gives orders to a machine. They were read as text and not followed.")
    if vague:
        reasons.append("Too short to be sure.")
    return {
        "reasoning_summary": " ".join(reasons),
        "category": kind,
        "language": language(message),
        "country": country(item),
        "summary": _WANTS.get(kind) or _wish(item, message),
        "confidence": "low" if vague else "medium" if kind == "other" or not message else "high",
    }


def qualification(question: Question) -> dict[str, Any]:
    """Points for fit, person and need; the tier follows from them."""
    item = question.item
    message, has_orders = own_words(item)
    points = {**_fit(item), **need(message)}
    person = influence(item)
    if person:
        points[text(item, "title")] = person
    score = max(min(sum(points.values()), 97) - question.rng.randint(0, 4), 0)
    private = is_free_mail(item) and not text(item, "company")
    if private:
        score = min(score, 24)
    missing = _missing(item, message)
    tier = tier_of(score)
    summary = [f"{score} points: {tier}."]
    if private:
        summary.append("A free mail address without a company.")
    if has_orders:
        summary.append("What the message says about its own score was not counted.")
    return {
        "reasoning_summary": " ".join(summary),
        "score": score,
        "tier": tier,
        "fit_reasons": [f"{reason[:1].upper()}{reason[1:80]} +{worth}" for reason, worth in points.items()],
        "missing_information": missing,
        "confidence": _confidence(item, score, private, len(missing)),
    }


def _wish(item: Mapping[str, Any], message: str) -> str:
    company = text(item, "company") or "A person without a company"
    wanted = need(message)
    if not message:
        return f"{company} came in through {text(item, 'source') or 'an import'} without a message."
    if "freight invoices are the problem" in wanted:
        return f"{company} wants freight invoices checked."
    return f"{company} asks about our product."


def _fit(item: Mapping[str, Any]) -> dict[str, int]:
    points = {}
    industry, size = attribute(item, "industry"), employees(item)
    if _TARGET.search(industry):
        points[industry] = 15
    if size is not None and size >= 10:
        points[f"{size} employees"] = 15 if size >= 50 else 7
    if is_in_region(item):
        points[text(item, "country") or country(item)] = 10
    return points


def _missing(item: Mapping[str, Any], message: str) -> list[str]:
    known = need(message)
    checks = (
        (text(item, "company"), "Company"),
        (employees(item), "Number of employees"),
        (attribute(item, "industry"), "Industry"),
        ("volume named" in known, "Shipments a month"),
        ("date named" in known, "When they want to decide"),
        (text(item, "title"), "The person's role"),
    )
    return [name for known_value, name in checks if not known_value]


def _confidence(item: Mapping[str, Any], score: int, private: bool, missing: int) -> str:
    if private or score >= 80:
        return "high"
    unknown_company = not attribute(item, "industry") and employees(item) is None
    if text(item, "company") and unknown_company and score >= 15:
        return "low"
    return "medium" if missing > 2 else "high"
