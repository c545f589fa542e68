from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries

from agents.spec import (
    Effect,
    Facts,
    OpenReview,
    OutputEvent,
    OutputFact,
    RunFact,
    SampleItem,
    ScheduleTrigger,
    Send,
    SetItem,
    Suppress,
    TriggerFact,
    WithdrawTriggers,
)
from leads.department import SALES
from leads.models import Lead
from leads.schemas import SalesSettings
from runs.plan import AgentView
from runs.router import RuleView, decide
from runs.rules import check_configuration, check_rule
from tests.factories import make_lead
from tests.leads.pipeline import KINDS_OF_OCCASION

SETTINGS = SalesSettings().model_dump(mode="json")
LEAD = OutputFact("intake", facets={"category": "lead"})
HOT = OutputFact("qualification", facets={"tier": "Hot", "score": 90})
COLD = OutputFact("qualification", facets={"tier": "Cold", "score": 10})
EMAIL = OutputFact("email")
CONTACTED = frozenset({"contacted"})
REPLIED = frozenset({"contacted", "replied"})
REPLY = TriggerFact(7, "reply")


def facts(*outputs: OutputFact, marks: frozenset[str] = frozenset(), **more: Any) -> Facts:
    return Facts("new", outputs=outputs, marks=marks, **more)


def answered(intent: str, *, opt_out: bool = False, occasion: int = 7) -> OutputFact:
    return OutputFact("draft", occasion, {"intent": intent, "opt_out": opt_out})


def decided(stage: str, occasion: int) -> OutputFact:
    return OutputFact("crm_update", occasion, {"stage": stage})


class TestAgents:
    def test_there_are_ten(self) -> None:
        assert len({agent.slug for agent in SALES.agents}) == 10

    def test_everything_read_is_written_by_somebody(self) -> None:
        written = {agent.writes for agent in SALES.agents}
        for agent in SALES.agents:
            assert {*agent.needs, *agent.uses} <= written - {agent.writes}, agent.slug

    def test_one_agent_writes_a_key_for_a_kind_of_occasion(self) -> None:
        seen: dict[tuple[str, str], str] = {}
        for agent in SALES.agents:
            for kind in agent.serves or KINDS_OF_OCCASION:
                assert (agent.writes, kind) not in seen, (agent.slug, seen[agent.writes, kind])
                seen[agent.writes, kind] = agent.slug

    def test_every_promoted_field_is_in_the_schema_and_its_name_is_used_once(self) -> None:
        names = [name for agent in SALES.agents for name in agent.facets]
        assert len(names) == len(set(names))
        for agent in SALES.agents:
            assert set(agent.facets) <= set(agent.schema.model_fields), agent.slug

    def test_every_setting_and_field_an_agent_is_told_exists(self) -> None:
        for agent in SALES.agents:
            assert set(agent.settings) <= set(SalesSettings.model_fields), agent.slug
            assert set(agent.fields) <= {field.name for field in Lead._meta.get_fields()}, agent.slug

    def test_the_chain_of_command_ends_at_one_agent(self) -> None:
        superiors = {agent.slug: agent.reports_to for agent in SALES.agents}
        assert [slug for slug, superior in superiors.items() if not superior] == ["strategist"]
        for slug in superiors:
            for _ in superiors:
                slug = superiors[slug] or slug
            assert slug == "strategist"

    def test_the_writer_does_not_see_how_else_to_reach_the_person(self) -> None:
        assert not {"phone", "email", "attributes", "website"} & set(SALES.agent("writer").fields)

    def test_the_checker_does_not_answer_to_the_writer(self) -> None:
        assert SALES.agent("fact_checker").reports_to != "writer"

    def test_mails_are_checked_on_every_occasion(self) -> None:
        assert SALES.agent("fact_checker").serves == SALES.agent("formatter").serves == ()

    def test_the_final_key_is_written_and_reviewed(self) -> None:
        writer = next(agent for agent in SALES.agents if agent.writes == SALES.final_key)
        assert writer.output_policy == "review"


@pytest.mark.django_db
class TestLoadFields:
    def test_it_gives_every_field_an_agent_may_see_in_one_query(
        self, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        leads = [make_lead(tags=["vip"], attributes={"Industry": "Food"}), make_lead(message="Hello")]
        with django_assert_num_queries(1):
            fields = SALES.load_fields(lead.pk for lead in leads)
        assert set(fields) == {lead.pk for lead in leads}
        first = fields[leads[0].pk]
        assert first["tags"] == ["vip"]
        assert first["attributes"] == {"Industry": "Food"}
        assert {name for agent in SALES.agents for name in agent.fields} <= set(first)

    def test_an_item_that_is_no_lead_is_left_out(self) -> None:
        assert SALES.load_fields([10_000]) == {}


class TestRules:
    def test_they_want_only_what_agents_write(self) -> None:
        written = {agent.writes for agent in SALES.agents}
        for rule in SALES.rules:
            assert set(rule.want) <= written, rule.name

    def test_their_clauses_name_what_exists(self) -> None:
        statuses = {status.slug for status in SALES.statuses}
        slugs = {agent.slug for agent in SALES.agents}
        facets = {name for agent in SALES.agents for name in agent.facets}
        for rule in SALES.rules:
            assert set(rule.when) <= {"status", "has", "lacks", "failed", "trigger", "facet", "tags"}
            assert set(rule.when.get("status", [])) <= statuses
            assert set(rule.when.get("failed", [])) <= slugs
            assert set(rule.when.get("facet", {})) <= facets
            assert set(rule.when.get("trigger", [])) <= set(KINDS_OF_OCCASION)

    def test_names_are_unique(self) -> None:
        assert len({rule.name for rule in SALES.rules}) == len(SALES.rules)

    def test_only_a_qualified_lead_or_one_known_to_be_a_lead_is_written_to(self) -> None:
        for rule in SALES.rules:
            if "email" in rule.want and "trigger" not in rule.when:
                known = rule.when.get("facet", {}).get("category") == ["lead"]
                assert known or rule.when["status"] == ["qualified"], rule.name

    def test_an_opt_out_is_never_answered(self) -> None:
        rule = next(r for r in SALES.rules if r.when.get("trigger") == ["reply"] and "email" in r.want)
        assert rule.when["facet"] == {"opt_out": [False], "answer_needed": [True]}


class TestSamples:
    def test_there_are_enough(self) -> None:
        assert len(SALES.samples) >= 8
        assert len({sample.name for sample in SALES.samples}) == len(SALES.samples)

    @pytest.mark.parametrize("sample", SALES.samples, ids=lambda s: s.name)
    def test_each_has_the_status_its_facts_imply(self, sample: Any) -> None:
        assert SALES.status(sample.facts) == sample.facts.status

    @pytest.mark.parametrize("sample", SALES.samples, ids=lambda s: s.name)
    def test_each_brings_only_facets_that_agents_promote(self, sample: Any) -> None:
        for key, facets in sample.facets.items():
            promoted = {name for agent in SALES.agents if agent.writes == key for name in agent.facets}
            assert set(facets) <= promoted, key


AGENT_VIEWS = [
    AgentView(agent.slug, agent.writes, agent.needs, agent.uses, agent.scope, agent.serves) for agent in SALES.agents
]
RULE_VIEWS = [RuleView(rule.name, rule.when, rule.want) for rule in SALES.rules]
FIRST_MAIL = ["research", "strategy", "draft", "fact_check", "email"]
WAYS = {
    "A new lead that is hot": (["intake", "qualification", *FIRST_MAIL], "drafted"),
    "A new lead that is warm": (["intake", "qualification", *FIRST_MAIL], "drafted"),
    "A new lead that is cold": (["intake", "qualification"], "nurturing"),
    "Spam": (["intake"], "rejected"),
    "Intake has failed": (["qualification", *FIRST_MAIL], "drafted"),
    "The Qualifier has failed": (FIRST_MAIL, "drafted"),
    "A hot lead, researched, nothing written yet": (["draft", "fact_check", "email"], "drafted"),
    "A draft that waits for a person": ([], "drafted"),
    "Written to, a follow-up is due": (["draft 5", "fact_check 5", "email 5"], "contacted"),
    "A reply that shows interest": (["draft 7", "fact_check 7", "email 7"], "replied"),
    "A reply that asks for no more mail": (["draft 7"], "opted_out"),
    "An automatic reply, a follow-up is planned": (["draft 7"], "contacted"),
    "A person has agreed on a meeting": (["crm_update 9"], "meeting"),
}


class TestTheWayOfALead:
    """The real router with the shipped agents and rules, until it says that it has finished."""

    def walk(self, sample: SampleItem) -> tuple[list[str], Facts]:
        known, made = sample.facts, []
        for _ in range(20):
            known = replace(known, status=SALES.status(known))
            decision = decide(known, RULE_VIEWS, AGENT_VIEWS)
            for start in decision.start:
                made.append(start.key if start.occasion is None else f"{start.key} {start.occasion}")
                written = OutputFact(start.key, start.occasion, sample.facets.get(start.key, {}))
                known = replace(known, outputs=(*known.outputs, written))
            settled = {*decision.handled, *decision.noted}
            known = replace(known, triggers=tuple(t for t in known.triggers if t.id not in settled))
            if decision.finished:
                return made, known
        raise AssertionError("the router never finished")

    @pytest.mark.parametrize("sample", SALES.samples, ids=lambda s: s.name)
    def test_it_ends_where_it_should(self, sample: SampleItem) -> None:
        made, known = self.walk(sample)
        assert (made, SALES.status(known)) == WAYS[sample.name]

    def test_agents_and_rules_fit_together(self) -> None:
        assert check_configuration(RULE_VIEWS, AGENT_VIEWS) == []

    @pytest.mark.parametrize("rule", RULE_VIEWS, ids=lambda r: r.name)
    def test_every_rule_could_be_saved_again(self, rule: RuleView) -> None:
        assert check_rule(rule, kind=SALES, rules=RULE_VIEWS, agents=AGENT_VIEWS) == []


STATUS_TABLE = [
    ("nothing is known", facts(), "new"),
    ("classified only", facts(LEAD), "new"),
    ("hot", facts(LEAD, HOT), "qualified"),
    ("cold", facts(LEAD, COLD), "nurturing"),
    ("spam", facts(OutputFact("intake", facets={"category": "spam"}), HOT), "rejected"),
    ("spam that writes again", facts(OutputFact("intake", facets={"category": "spam"}), triggers=(REPLY,)), "replied"),
    ("misjudged, but written to",
     facts(OutputFact("intake", facets={"category": "other"}), marks=CONTACTED), "contacted"),
    ("intake failed, qualified all the same", facts(HOT, runs=(RunFact("intake", None, "failed"),)), "qualified"),
    ("a mail waits", facts(LEAD, HOT, EMAIL), "drafted"),
    ("a mail is approved", facts(LEAD, HOT, OutputFact("email", verdict="approved")), "approved"),
    ("a mail is rejected", facts(LEAD, HOT, OutputFact("email", verdict="rejected")), "shelved"),
    ("a mail for a follow-up is no first mail", facts(LEAD, HOT, OutputFact("email", 4)), "qualified"),
    ("a mail went out", facts(LEAD, HOT, EMAIL, marks=CONTACTED), "contacted"),
    ("a follow-up waits", facts(LEAD, HOT, EMAIL, OutputFact("email", 4), marks=CONTACTED), "contacted"),
    ("a reply came", facts(LEAD, HOT, EMAIL, marks=REPLIED), "replied"),
    ("a reply is open", facts(LEAD, HOT, triggers=(REPLY,)), "replied"),
    ("an answer is drafted", facts(LEAD, HOT, answered("interested"), marks=REPLIED), "replied"),
    ("an answer went out", facts(LEAD, HOT, answered("interested"), marks=REPLIED | {"answered"}), "answered"),
    ("they write again after it", facts(LEAD, triggers=(REPLY,), marks=REPLIED | {"answered"}), "replied"),
    ("an automatic reply", facts(LEAD, HOT, answered("out_of_office"), marks=REPLIED), "contacted"),
    ("a reply after an automatic one",
     facts(LEAD, answered("out_of_office"), triggers=(TriggerFact(9, "reply"),), marks=REPLIED), "replied"),
    ("asked for no more mail", facts(LEAD, answered("unsubscribe", opt_out=True), marks=REPLIED), "opted_out"),
    ("suppressed elsewhere", facts(LEAD, HOT, marks=frozenset({"suppressed"})), "opted_out"),
    ("a meeting", facts(LEAD, decided("meeting", 9), marks=REPLIED), "meeting"),
    ("won after a meeting", facts(LEAD, decided("meeting", 9), decided("won", 11), marks=REPLIED), "won"),
    ("a note does not undo a meeting",
     facts(decided("meeting", 9), decided("unchanged", 11), marks=REPLIED), "meeting"),
    ("a lost one writes again", facts(decided("lost", 9), triggers=(TriggerFact(12, "reply"),), marks=REPLIED), "lost"),
    ("won, then opted out", facts(decided("won", 9), marks=frozenset({"suppressed"})), "opted_out"),
]  # fmt: skip

ODD = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8), st.lists(st.integers(), max_size=2),
                st.dictionaries(st.text(max_size=3), st.integers(), max_size=1))  # fmt: skip
NAMES = ["category", "tier", "opt_out", "intent", "stage", "unsupported"]
OUTPUTS = st.builds(
    OutputFact,
    key=st.sampled_from(["intake", "qualification", "draft", "email", "crm_update", "unknown"]),
    occasion=st.one_of(st.none(), st.integers(1, 20)),
    facets=st.dictionaries(st.sampled_from(NAMES), ODD, max_size=3),
    verdict=st.sampled_from(["none", "approved", "rejected", "odd"]),
)
ODD_FACTS = st.builds(
    Facts,
    status=st.text(max_size=5),
    outputs=st.lists(OUTPUTS, max_size=5).map(tuple),
    triggers=st.lists(st.builds(TriggerFact, st.integers(1, 9), st.sampled_from(["reply", "x"])), max_size=2).map(
        tuple
    ),
    marks=st.frozensets(st.sampled_from(["contacted", "replied", "answered", "suppressed", "odd"])),
)


class TestStatus:
    @pytest.mark.parametrize(("name", "known", "expected"), STATUS_TABLE, ids=[row[0] for row in STATUS_TABLE])
    def test_it_follows_from_the_facts(self, name: str, known: Facts, expected: str) -> None:
        assert SALES.status(known) == expected

    def test_every_status_is_reached(self) -> None:
        assert {row[2] for row in STATUS_TABLE} == {status.slug for status in SALES.statuses}

    @given(ODD_FACTS)
    def test_it_never_raises(self, odd: Facts) -> None:
        assert SALES.status(odd) in {status.slug for status in SALES.statuses}

    def test_closing_statuses(self) -> None:
        closing = {status.slug for status in SALES.statuses if status.is_closing}
        assert closing == {"won", "lost", "opted_out", "rejected"}


def effects(what: Any, key: str, payload: dict[str, Any], **more: Any) -> list[Effect]:
    return list(SALES.effects(OutputEvent(what, key, payload, settings=more.pop("settings", SETTINGS), **more)))


def mail(**more: Any) -> dict[str, Any]:
    return {"subject": "Fuel surcharges", "body": "Hello", "removed_claims": [], **more}


def checked(unsupported: int, occasion: int | None = None) -> Facts:
    return facts(OutputFact("draft", occasion), OutputFact("fact_check", occasion, {"unsupported": unsupported}))


class TestEffects:
    def test_intake_sets_tags_and_keeps_those_of_people(self) -> None:
        payload = {"category": "spam", "language": "el", "country": "GR", "confidence": "high"}
        before = Facts("new", tags=frozenset({"vip", "lang:en", "student"}))
        assert effects("written", "intake", payload, facts=before) == [
            SetItem({"tags": ["country:GR", "lang:el", "spam", "vip"]})
        ]

    @pytest.mark.parametrize(("tier", "priority"), [("Hot", 20), ("Warm", 40), ("Cold", 80)])
    def test_qualification_sets_the_priority(self, tier: str, priority: int) -> None:
        payload = {"tier": tier, "score": 50, "confidence": "high"}
        assert effects("written", "qualification", payload) == [SetItem({"priority": priority})]

    @pytest.mark.parametrize(
        ("key", "more"), [("intake", {}), ("qualification", {}), ("draft", {"occasion_kind": "reply"})]
    )
    def test_low_confidence_asks_a_person(self, key: str, more: dict[str, Any]) -> None:
        payload = {"category": "lead", "tier": "Hot", "score": 71, "intent": "other", "confidence": "low"}
        reviews = [e for e in effects("written", key, payload, **more) if isinstance(e, OpenReview)]
        assert [review.kind for review in reviews] == ["low_confidence"]
        assert reviews[0].ask.endswith("?")

    def test_a_reply_withdraws_follow_ups(self) -> None:
        payload = {"intent": "question", "opt_out": False}
        found = effects("written", "draft", payload, occasion_kind="reply")
        assert found == [WithdrawTriggers("follow_up", "They have replied.")]

    def test_an_opt_out_suppresses_whatever_the_stop_rules_say(self) -> None:
        payload = {"intent": "unsubscribe", "opt_out": True}
        found = effects("written", "draft", payload, occasion_kind="reply", settings={"stop_rules": []})
        assert found == [
            Suppress("opt_out"),
            WithdrawTriggers("follow_up", "They asked not to be written to again."),
        ]

    def test_an_automatic_reply_leaves_follow_ups_alone_unless_told_otherwise(self) -> None:
        payload = {"intent": "out_of_office", "opt_out": False}
        assert effects("written", "draft", payload, occasion_kind="reply") == []
        strict = {"stop_rules": ["reply", "out_of_office"]}
        assert effects("written", "draft", payload, occasion_kind="reply", settings=strict)

    @pytest.mark.parametrize("kind", ["item", "follow_up"])
    def test_a_draft_that_is_no_answer_implies_nothing(self, kind: str) -> None:
        assert effects("written", "draft", {"subject": "x"}, occasion_kind=kind) == []

    @pytest.mark.parametrize(
        ("occasion", "removed", "unsupported", "risk"),
        [(None, [], 0, 1), (None, ["x"], 1, 2), (None, [], 1, 3), (None, ["x"], 2, 3), (4, [], 0, 1), (4, [], 2, 3)],
    )
    def test_a_mail_asks_for_approval_with_its_risk(
        self, occasion: int | None, removed: list[str], unsupported: int, risk: int
    ) -> None:
        kind = "follow_up" if occasion else "item"
        payload = mail(removed_claims=removed)
        known = checked(unsupported, occasion)
        [review] = effects("written", "email", payload, occasion=occasion, occasion_kind=kind, facts=known)
        assert isinstance(review, OpenReview)
        assert (review.kind, review.risk) == ("draft", risk)
        assert "Fuel surcharges" in review.ask
        assert review.ask.endswith("?")

    def test_the_risk_is_that_of_the_mail_not_of_a_newer_draft(self) -> None:
        older, newer = checked(2, 4), checked(0, 9)
        known = facts(*older.outputs, *newer.outputs)
        [review] = effects("written", "email", mail(), occasion=4, occasion_kind="follow_up", facts=known)
        assert isinstance(review, OpenReview)
        assert review.risk == 3
        assert "2 claims that have no source" in review.ask

    def test_the_ask_says_that_a_mail_was_written_without_research(self) -> None:
        bare, known = checked(0), Facts("qualified", outputs=(*checked(0).outputs, OutputFact("research")))
        asks = [effects("written", "email", mail(), facts=each)[0] for each in (bare, known)]
        assert [getattr(one, "ask", "") for one in asks] == [
            "Send the first mail “Fuel surcharges”, written without research?",
            "Send the first mail “Fuel surcharges”?",
        ]
        [answer] = effects("written", "email", mail(), occasion_kind="reply", facts=bare)
        assert isinstance(answer, OpenReview)
        assert "research" not in answer.ask

    def test_an_unchecked_mail_is_the_highest_risk(self) -> None:
        first_checked = checked(0)
        answer = Facts("replied", outputs=(*first_checked.outputs, OutputFact("draft", 7)))
        [review] = effects("written", "email", mail(), occasion=7, occasion_kind="reply", facts=answer)
        assert isinstance(review, OpenReview)
        assert review.risk == 3
        assert "nobody has checked" in review.ask

    @pytest.mark.parametrize(
        ("kind", "payload", "expected"),
        [
            ("item", {}, (4, 1)),
            ("follow_up", {"number": 1}, (7, 2)),
            ("follow_up", {"number": 2}, None),
            ("follow_up", {"number": 99}, None),
            ("follow_up", {}, None),
            ("follow_up", {"number": "1"}, None),
            ("follow_up", {"number": -1}, None),
            ("reply", {}, None),
            ("decision", {}, None),
        ],
    )
    def test_a_sent_mail_plans_the_next_of_the_cadence(
        self, kind: str, payload: dict[str, Any], expected: tuple[int, int] | None
    ) -> None:
        found = effects("sent", "email", mail(), occasion_kind=kind, occasion_payload=payload)
        plan = [ScheduleTrigger("follow_up", timedelta(days=expected[0]), {"number": expected[1]})] if expected else []
        assert found == plan

    @pytest.mark.parametrize("cadence", [[], [0, -1], ["soon"]])
    def test_an_empty_cadence_plans_nothing(self, cadence: list[Any]) -> None:
        assert effects("sent", "email", mail(), settings={"cadence": cadence}) == []

    @pytest.mark.parametrize("marks", [REPLIED, frozenset({"suppressed"})])
    def test_nothing_is_planned_for_who_has_answered_or_opted_out(self, marks: frozenset[str]) -> None:
        assert effects("sent", "email", mail(), facts=facts(LEAD, HOT, marks=marks)) == []
        assert effects("sent", "email", mail(), facts=facts(LEAD, HOT, marks=CONTACTED))

    @pytest.mark.parametrize(("stage", "stops"), [("won", True), ("lost", True), ("unchanged", False)])
    def test_a_decision_withdraws_follow_ups(self, stage: str, stops: bool) -> None:
        found = effects("written", "crm_update", {"stage": stage}, occasion_kind="decision")
        assert [type(effect) for effect in found] == [WithdrawTriggers] * stops

    @pytest.mark.parametrize(
        ("what", "key"),
        [(what, key) for what in ("approved", "rejected") for key in ("intake", "qualification", "draft")]
        + [("rejected", "email"), ("rejected", "crm_update")],
    )
    def test_a_verdict_on_what_does_not_leave_the_house_implies_nothing(self, what: str, key: str) -> None:
        assert effects(what, key, mail(stage="won", opt_out=True)) == []

    @pytest.mark.parametrize(
        ("kind", "purpose"), [("item", "first_mail"), ("follow_up", "follow_up"), ("reply", "answer")]
    )
    def test_an_approved_mail_leaves_the_house_as_what_it_is(self, kind: str, purpose: str) -> None:
        occasion = None if kind == "item" else 7
        assert effects("approved", "email", mail(), occasion=occasion, occasion_kind=kind) == [
            Send("email", purpose, {"subject": "Fuel surcharges", "body": "Hello"})
        ]

    def test_an_approved_crm_update_goes_to_the_crm(self) -> None:
        change = {"field": "next_step", "value": "Call on Thursday", "reason": "Agreed"}
        payload = {"stage": "meeting", "changes": [change]}
        fields = {"stage": "meeting", "fields": {"next_step": "Call on Thursday"}}
        assert effects("approved", "crm_update", payload) == [Send("crm", "crm_update", fields)]

    def test_a_crm_update_that_changes_nothing_is_not_sent(self) -> None:
        assert effects("approved", "crm_update", {"stage": "unchanged", "changes": []}) == []

    @pytest.mark.parametrize("key", ["intake", "qualification", "draft", "email", "crm_update", "unknown"])
    def test_an_empty_payload_does_not_raise(self, key: str) -> None:
        for what in ("written", "sent"):
            for kind in KINDS_OF_OCCASION:
                effects(what, key, {}, occasion_kind=kind, settings={})
