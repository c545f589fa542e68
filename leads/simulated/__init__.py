"""The sales answer book of the simulator: what each agent would say, made from the lead's own data.

Importing this package registers it. The answers are worth looking at and consistent with one another, but
they are word lists and templates; nothing here is used when a real model answers.
"""

from __future__ import annotations

from agents.simulator.answers import AnswerBook, register_answers
from leads.schemas import (
    Answer,
    CrmUpdate,
    Draft,
    Email,
    FactCheck,
    FollowUpDraft,
    Intake,
    Qualification,
    ReplyDraft,
    Research,
    Strategy,
)
from leads.simulated import answering, outreach, triage

BOOK: dict[type[Answer], AnswerBook] = {
    Intake: triage.intake,
    Qualification: triage.qualification,
    Research: outreach.research,
    Strategy: outreach.strategy,
    Draft: outreach.draft,
    FollowUpDraft: outreach.follow_up,
    ReplyDraft: answering.reply,
    FactCheck: answering.fact_check,
    Email: answering.email,
    CrmUpdate: answering.crm_update,
}

for schema, answer in BOOK.items():
    register_answers(schema.__name__, answer)
