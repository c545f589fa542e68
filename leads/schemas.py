"""What the ten sales agents write, and the settings of a sales department. Pure pydantic, no Django.

Every schema begins with ``reasoning_summary``, forbids unknown keys and stays inside the API's limits: no
maps, no recursion, no optional keys. The API drops bounds such as 0-100, so they are checked here when an
answer comes back; a broken one is shown to the agent, which corrects it. A ``title`` is what people read for the
field on pages and in rules; the API is not told it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Category = Literal["lead", "spam", "job_application", "vendor_pitch", "student", "other"]
Tier = Literal["Hot", "Warm", "Cold"]
Confidence = Literal["high", "medium", "low"]
Intent = Literal[
    "interested",
    "question",
    "objection",
    "not_now",
    "out_of_office",
    "wrong_person",
    "unsubscribe",
    "other",
]
Urgency = Literal["low", "normal", "high"]
Stage = Literal["unchanged", "meeting", "won", "lost"]
CrmField = Literal[
    "name",
    "email",
    "company",
    "title",
    "phone",
    "website",
    "country",
    "next_step",
    "meeting_at",
    "deal_value",
    "close_reason",
    "note",
]
StopEvent = Literal["reply", "out_of_office", "decision"]

TIER_FLOORS: dict[Tier, int] = {"Hot": 70, "Warm": 40, "Cold": 0}
"""The lowest score of each tier, best tier first."""


def tier_of(score: int) -> Tier:
    """The tier that a score of 0-100 belongs to."""
    return next(tier for tier, floor in TIER_FLOORS.items() if score >= floor)


_CHECKED_HERE = ("title", "minLength", "maxLength", "minItems", "maxItems", "pattern")


def _slim(schema: dict[str, Any], model: type[BaseModel]) -> None:
    # What the field's name or the SOUL says already, and bounds that the API would turn into prose, would be
    # a tenth of every request. The bounds are checked by us all the same.
    schema.pop("description", None)
    if not issubclass(model, Answer):
        schema.pop("title", None)
    for prop in schema.get("properties", {}).values():
        for key in _CHECKED_HERE:
            prop.pop(key, None)


def _one_line(value: str) -> str:
    # A line break in a subject would start a new mail header.
    if any(ord(character) < 32 or character in "\x7f\x85\u2028\u2029" for character in value):
        raise ValueError("must be one line without control characters")
    return value


Line = Annotated[str, AfterValidator(_one_line)]
Text = Annotated[str, Field(min_length=1)]


class Part(BaseModel):
    """A piece of an answer."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, json_schema_extra=_slim)


class Answer(Part):
    """What every agent's output begins with."""

    reasoning_summary: str = Field(min_length=1, max_length=1_200)


class Intake(Answer):
    """What kind of message this is."""

    category: Category = Field(title="kind of message")
    language: str = Field(pattern=r"^[a-z]{2,3}$", description="ISO 639 code of the message")
    country: str = Field(pattern=r"^([A-Z]{2})?$", description="ISO 3166 alpha-2, empty if unknown")
    summary: Line
    confidence: Confidence


class Qualification(Answer):
    """How well the lead fits. Hot from 70, Warm from 40, else Cold."""

    score: int = Field(ge=0, le=100)
    tier: Tier
    fit_reasons: list[str]
    missing_information: list[str]
    confidence: Confidence

    @model_validator(mode="after")
    def _tier_agrees_with_score(self) -> Self:
        if self.tier != tier_of(self.score):
            raise ValueError(
                f"tier is {self.tier}, but a score of {self.score} is {tier_of(self.score)}: "
                "Hot from 70, Warm from 40, else Cold"
            )
        return self


class Fact(Part):
    """One statement and where it was read."""

    statement: Text
    source: Text


class Research(Answer):
    """What is known about the company, and what is not."""

    company_summary: str
    facts: list[Fact] = Field(max_length=12)
    unknowns: list[str]


class Strategy(Answer):
    """How to approach this lead."""

    angle: Text
    pains: list[str] = Field(max_length=4)
    proof_points: list[Fact] = Field(max_length=3)
    call_to_action: Text


class Claim(Part):
    """A statement of fact in the body; source empty if there is none."""

    text: Text
    source: str


class Draft(Answer):
    """A first mail."""

    subject: Annotated[Line, Field(min_length=1, max_length=160)]
    body: str = Field(min_length=1, max_length=6_000)
    claims: list[Claim] = Field(max_length=12)


class FollowUpDraft(Draft):
    """A follow-up mail."""


class ReplyDraft(Answer):
    """What a reply means, and the answer to it. Subject and body are empty if no answer is needed."""

    intent: Intent = Field(title="reply intent")
    urgency: Urgency = Field(title="reply urgency")
    opt_out: bool
    answer_needed: bool = Field(title="need for an answer")
    confidence: Confidence
    subject: Annotated[Line, Field(max_length=160)]
    body: str = Field(max_length=6_000)
    claims: list[Claim] = Field(max_length=12)

    @model_validator(mode="after")
    def _decisions_agree(self) -> Self:
        if self.intent == "unsubscribe" and not self.opt_out:
            raise ValueError("intent is unsubscribe, so opt_out must be true")
        if self.opt_out and self.answer_needed:
            raise ValueError("opt_out is true, so answer_needed must be false: nobody writes to them again")
        if self.answer_needed and not (self.subject and self.body):
            raise ValueError("answer_needed is true, so subject and body must not be empty")
        if not self.answer_needed and (self.subject or self.body or self.claims):
            raise ValueError("answer_needed is false, so subject, body and claims must be empty")
        return self


class Check(Part):
    """One claim beside what supports it."""

    claim: Text
    supported: bool
    source: str
    note: str

    @model_validator(mode="after")
    def _support_has_a_source(self) -> Self:
        if self.supported and not self.source:
            raise ValueError("supported is true, so source must say where the support was read")
        return self


class FactCheck(Answer):
    """Each claim of the draft, checked."""

    checks: list[Check]
    unsupported: int = Field(title="number of unsupported claims", ge=0)

    @model_validator(mode="after")
    def _count_is_right(self) -> Self:
        count = sum(not check.supported for check in self.checks)
        if self.unsupported != count:
            raise ValueError(f"unsupported is {self.unsupported}, but {count} checks are not supported")
        return self


class Email(Answer):
    """The final mail, as it will be sent."""

    subject: Annotated[Line, Field(min_length=1, max_length=160)]
    body: str = Field(min_length=1, max_length=6_000)
    removed_claims: list[str]


class CrmChange(Part):
    """One field and its new value."""

    field: CrmField
    value: Text
    reason: str


class CrmUpdate(Answer):
    """What the decision changes in the CRM."""

    stage: Stage = Field(title="stage in the CRM")
    changes: list[CrmChange] = Field(max_length=8)


# --- Settings ---------------------------------------------------------------------------------------------


class CompanyFact(BaseModel):
    """Something the department may claim about its company, and where it is written down."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    fact: Text
    source: Text


def _default_facts() -> list[CompanyFact]:
    return [
        CompanyFact(fact=fact, source=source)
        for fact, source in (
            ("Halden Furniture found 3.8 % of its freight spend billed wrongly", "Case Halden Furniture#2"),
            ("Brightwater Foods checks invoices in 4 hours a month, once 5 days", "Case Brightwater Foods#2"),
            ("Plans start at 490 euros a month for up to 1,000 invoices", "Pricing#1"),
            ("A first audit of three months of invoices is free of charge", "Pricing#3"),
            ("Data is stored in the EU, certified to ISO 27001", "Security#1"),
        )
    ]


class SalesSettings(BaseModel):
    """The settings of a sales department, edited in the admin. The defaults describe an invented company.

    ``cadence`` holds the days between one mail and the next follow-up; when it is used up, nobody writes
    again.
    ``stop_rules`` names what withdraws follow-ups that are planned; an opt-out always does.
    """

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    company_name: Line = Field(default="Tallyport", min_length=1, max_length=120)
    company_pitch: str = Field(
        default=(
            "Tallyport checks every freight invoice of companies that ship goods against contract and "
            "shipment, and disputes what was billed wrongly."
        ),
        max_length=1_000,
    )
    company_facts: list[CompanyFact] = Field(default_factory=_default_facts, max_length=30)
    icp: str = Field(
        title="Ideal customer profile (ICP)",
        default=(
            "Manufacturers, retailers, wholesalers and food companies in Europe or North America with 50 or "
            "more employees and more than 300 shipments a month with several carriers. Contacts: heads of "
            "logistics, supply chain or finance, founders. Poor fit: carriers, consumers, below 10 employees."
        ),
        max_length=3_000,
    )
    brand_guide: str = Field(
        default=(
            "Plain text. Short paragraphs. Write Tallyport with one capital. No exclamation marks, no emoji, "
            "no links but tallyport.example. Numbers as digits."
        ),
        max_length=3_000,
    )
    tone: str = Field(default="Friendly, direct, modest. One idea a mail.", max_length=600)
    sender_name: Line = Field(default="Mara Lindqvist", min_length=1, max_length=120)
    signature: str = Field(default="Mara Lindqvist\nTallyport, tallyport.example", max_length=600)
    language_policy: str = Field(
        default="English with short sentences: for many readers it is a second language.",
        max_length=600,
    )
    cadence: list[Annotated[int, Field(ge=1, le=365)]] = Field(default=[4, 7], max_length=10)
    stop_rules: list[StopEvent] = Field(default=["reply", "decision"])
    max_subject_chars: int = Field(title="Longest subject, in characters", default=60, ge=20, le=160)
    max_body_words: int = Field(title="Longest mail, in words", default=140, ge=40, le=600)
