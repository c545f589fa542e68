"""The sales kind of department: ten agents, the rules that decide what is wanted, a lead's fields."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agents.spec import AgentSpec, DepartmentSpec, RiskRuleSpec, RuleSpec, SettingsSection
from agents.statements import Among, Statement
from leads.corrections import correct
from leads.effects import effects
from leads.filters import NAMES, filter_words, read_fixed, select_items
from leads.first_steps import first_steps
from leads.models import Lead, StagedLead
from leads.progress import IN_CONVERSATION, STATUSES, status
from leads.rule_samples import SAMPLES
from leads.schemas import (
    CrmUpdate,
    Draft,
    Email,
    FactCheck,
    FollowUpDraft,
    Intake,
    Qualification,
    ReplyDraft,
    Research,
    SalesSettings,
    Strategy,
)
from leads.tasks import tidy_imports

HAIKU = "claude-haiku-5-5"
SONNET = "claude-sonnet-5-5"
OPUS = "claude-opus-5-5"

_FIELDS = (
    "name",
    "email",
    "company",
    "title",
    "phone",
    "website",
    "country",
    "source",
    "message",
    "attributes",
)
_VOICE = ("company_name", "company_pitch", "tone", "sender_name", "language_policy")

# Sonnet writes what a prospect reads. Who classifies, extracts, checks and notes works on Haiku, at high effort where
# others rely on it: a twentieth of the price, so that a whole conversation with a Hot lead stays under 0.04 USD
# (make economics). Each agent's model is a field of its page, and what another one had cost stands on the costs page.
AGENTS = (
    AgentSpec(
        slug="intake",
        job="Intake Classifier: says what kind of message came in",
        model=HAIKU,
        fallback_models=(SONNET,),
        writes="intake",
        schema=Intake,
        fields=("email", "company", "title", "website", "country", "source", "message"),
        settings=("company_pitch",),
        facets=("category", "language", "country"),
        scope="item",
        effort="low",
        max_tokens=2_000,
        timeout_seconds=60,
        latency_target_seconds=5,
        reports_to="qualifier",
    ),
    AgentSpec(
        slug="qualifier",
        job="Qualifier: scores how well the lead fits",
        model=HAIKU,
        fallback_models=(SONNET,),
        writes="qualification",
        schema=Qualification,
        uses=("intake",),
        fields=("email", "company", "title", "website", "country", "message", "attributes"),
        settings=("icp",),
        facets=("tier", "score"),
        scope="item",
        effort="medium",
        max_tokens=3_000,
        timeout_seconds=60,
        latency_target_seconds=5,
        reports_to="strategist",
    ),
    AgentSpec(
        slug="researcher",
        job="Researcher: finds out what is known about the company",
        model=HAIKU,
        fallback_models=(SONNET,),
        writes="research",
        schema=Research,
        uses=("intake", "qualification"),
        fields=("company", "title", "website", "country", "attributes"),
        tools=("read_website", "search_knowledge"),
        settings=("company_pitch",),
        scope="item",
        effort="high",
        max_tokens=8_000,
        timeout_seconds=180,
        latency_target_seconds=30,
        reports_to="strategist",
    ),
    AgentSpec(
        slug="strategist",
        job="Strategist: chooses the angle and the proof",
        model=HAIKU,
        fallback_models=(SONNET,),
        writes="strategy",
        schema=Strategy,
        uses=("qualification", "research"),
        fields=("company", "title", "message"),
        settings=("company_facts",),
        scope="item",
        effort="medium",
        max_tokens=3_000,
        timeout_seconds=60,
        latency_target_seconds=6,
    ),
    AgentSpec(
        slug="writer",
        job="Writer: drafts the first mail",
        model=SONNET,
        fallback_models=(OPUS,),
        writes="draft",
        schema=Draft,
        uses=("research", "strategy"),
        fields=("name", "company", "title", "message"),
        settings=_VOICE,
        serves=("item",),
        effort="medium",
        max_tokens=4_000,
        latency_target_seconds=20,
        reports_to="strategist",
    ),
    AgentSpec(
        slug="followup_writer",
        job="Follow-up Writer: drafts the next mail to somebody who has not answered",
        model=SONNET,
        fallback_models=(OPUS,),
        writes="draft",
        schema=FollowUpDraft,
        uses=("research", "strategy"),
        fields=("name", "company", "title"),
        settings=(*_VOICE, "cadence"),
        conversation=True,
        serves=("follow_up",),
        effort="medium",
        max_tokens=4_000,
        latency_target_seconds=20,
        reports_to="writer",
    ),
    AgentSpec(
        slug="reply_handler",
        job="Reply Handler: understands a reply and drafts the answer",
        model=SONNET,
        fallback_models=(OPUS,),
        writes="draft",
        schema=ReplyDraft,
        uses=("qualification",),
        fields=("name", "company", "title"),
        settings=(*_VOICE, "company_facts"),
        facets=("intent", "urgency", "opt_out", "answer_needed"),
        conversation=True,
        serves=("reply",),
        effort="medium",
        max_tokens=4_000,
        latency_target_seconds=20,
        reports_to="strategist",
    ),
    AgentSpec(
        slug="fact_checker",
        job="Fact-Checker: holds every claim against its source",
        model=HAIKU,
        fallback_models=(SONNET,),
        writes="fact_check",
        schema=FactCheck,
        needs=("draft",),
        uses=("research",),
        settings=("company_name", "company_facts"),
        facets=("unsupported",),
        effort="high",
        max_tokens=8_000,
        latency_target_seconds=20,
        # Not to the Writer's chain of command: who checks must not answer to whom he checks.
        reports_to="strategist",
    ),
    AgentSpec(
        slug="formatter",
        job="Formatter: turns the checked draft into the final mail",
        model=HAIKU,
        fallback_models=(SONNET,),
        writes="email",
        schema=Email,
        needs=("draft",),
        uses=("fact_check",),
        settings=("brand_guide", "signature", "max_subject_chars", "max_body_words"),
        effort="low",
        max_tokens=3_000,
        timeout_seconds=60,
        latency_target_seconds=6,
        reports_to="fact_checker",
        output_policy="review",
    ),
    AgentSpec(
        slug="crm_scribe",
        job="CRM Scribe: notes what a decision changes",
        model=HAIKU,
        fallback_models=(SONNET,),
        writes="crm_update",
        schema=CrmUpdate,
        uses=("qualification", "intake"),
        fields=("name", "email", "company", "title", "phone", "website", "country"),
        facets=("stage",),
        conversation=True,
        serves=("decision",),
        effort="low",
        max_tokens=2_000,
        timeout_seconds=60,
        latency_target_seconds=6,
        reports_to="strategist",
    ),
)

# Spam is stopped by the order: nothing is qualified before Intake has called it a lead, and nothing is
# drafted before it is qualified. Where Intake has failed, the Qualifier reads the message; where both have,
# people do.
RULES = (
    RuleSpec("Classify what comes in", {"status": ["new"]}, ("intake",)),
    RuleSpec("Qualify leads", {"status": ["new"], "facet": {"category": ["lead"]}}, ("qualification",)),
    RuleSpec(
        "Qualify what Intake could not classify",
        {"status": ["new"], "failed": ["intake"]},
        ("qualification",),
    ),
    RuleSpec("Write to good leads", {"status": ["qualified"], "facet": {"tier": ["Hot", "Warm"]}}, ("email",)),
    RuleSpec(
        "Write to leads that could not be qualified",
        {"status": ["new"], "failed": ["qualifier"], "facet": {"category": ["lead"]}},
        ("email",),
    ),
    RuleSpec("Follow up", {"trigger": ["follow_up"], "status": ["contacted"]}, ("email",)),
    RuleSpec("Read replies", {"trigger": ["reply"], "status": [*IN_CONVERSATION, "opted_out"]}, ("draft",)),
    RuleSpec(
        "Answer replies",
        {
            "trigger": ["reply"],
            "status": [*IN_CONVERSATION],
            "facet": {"opt_out": [False], "answer_needed": [True]},
        },
        ("email",),
    ),
    RuleSpec("Note decisions", {"trigger": ["decision"]}, ("crm_update",)),
)

RISK_RULES = (
    RiskRuleSpec("Hot lead", {"facet": {"tier": ["Hot"]}}, 3),
    RiskRuleSpec("Unsupported claims", {"facet": {"unsupported": list(range(1, 13))}}, 2),
    RiskRuleSpec("First contact", {"marks": ["first_contact"]}, 2),
    RiskRuleSpec("New SOUL, model or rule", {"marks": ["new_soul"]}, 2),
)


SETTINGS_SECTIONS = (
    SettingsSection(
        "company",
        "Our company",
        ("company_name", "company_pitch", "company_facts"),
        "The Fact-Checker lets pass what stands here or in the research, and nothing else.",
        invented=("company_name", "company_pitch", "company_facts"),
    ),
    SettingsSection(
        "icp",
        "Ideal customer",
        ("icp",),
        "The Qualifier scores new leads by this. Leads that are scored already keep their tier until they are rerun.",
        invented=("icp",),
    ),
    SettingsSection(
        "brand",
        "Brand and tone",
        (
            *("brand_guide", "tone", "language_policy", "sender_name", "signature"),
            *("max_subject_chars", "max_body_words"),
        ),
        "Mails that are written from now on follow it. Drafts that are there stay as they are.",
        invented=("brand_guide", "sender_name", "signature"),
    ),
    SettingsSection(
        "cadence",
        "Follow-ups",
        ("cadence", "stop_rules"),
        "Days between one mail and the next follow-up. Follow-ups that are planned already keep their day.",
    ),
)


def load_fields(item_ids: Iterable[int]) -> dict[int, dict[str, Any]]:
    """The fields of leads, ``{item_id: {field: value}}``, in one query; an unknown id is left out."""
    names = ("tags", *_FIELDS)
    return {pk: dict(zip(names, values, strict=True)) for pk, *values in _LEADS.rows(items=item_ids)}


_LEADS = Statement(lambda: Lead.objects.filter(Among("pk", "items")).values_list("pk", "item__tags", *_FIELDS))


def staged_leads(item_ids: Iterable[int]) -> set[int]:
    """Those of the items whose import has not come to its end, which makes them due; one query."""
    return set(StagedLead.objects.filter(lead__in=list(item_ids)).values_list("lead_id", flat=True))


SALES = DepartmentSpec(
    kind="sales",
    label="Sales",
    item_label="lead",
    agents=AGENTS,
    rules=RULES,
    statuses=STATUSES,
    settings_schema=SalesSettings,
    souls_dir=str(Path(__file__).parent / "souls"),
    status=status,
    effects=effects,
    load_fields=load_fields,
    samples=SAMPLES,
    final_key="email",
    send_back_to={"email": "draft"},
    correct=correct,
    risk_rules=RISK_RULES,
    cost_dimensions={"source": "lead__source"},
    outcomes={
        # What comes after the first of these need not be named; a lead that is lost at once was never qualified.
        "qualified lead": (
            "qualified",
            "drafted",
            "approved",
            "shelved",
            "contacted",
            "replied",
            "answered",
            "meeting",
            "won",
        ),
        "reply": ("replied", "answered"),
        "meeting": ("meeting", "won"),
    },
    item_url_name="leads:detail",
    filters=NAMES,
    select=select_items,
    filter_words=filter_words,
    read_filter=read_fixed,
    unready=staged_leads,
    settings_sections=SETTINGS_SECTIONS,
    first_sections=("company", "icp", "brand"),
    first_steps=first_steps,
    every_minute=tidy_imports,
)
