"""What the router decides, one table for each rule of its semantics."""

from __future__ import annotations

import pytest

from agents.spec import Facts, OutputFact, RunFact
from runs.plan import AgentView
from runs.router import Router, RuleView, Skipped, Start, Waiting, decide
from tests.runs.routing import agent, begin, outputs, rule, run, started, trigger

MAIL = [
    agent("researcher", "research", scope="item"),
    agent("writer", "draft", uses="research", serves="item"),
    agent("answerer", "draft", uses="research", serves="reply"),
    agent("checker", "check", needs="draft", uses="research"),
    agent("formatter", "email", needs="draft", uses="check"),
]
FIRST_MAIL = [rule("email")]
ANSWER = [rule("email", trigger=["reply"])]


def test_it_starts_what_waits_for_nothing_and_says_what_the_others_wait_for() -> None:
    decision = decide(Facts("new"), FIRST_MAIL, MAIL)

    assert decision.start == (Start("researcher", None, "research", "“wants email” wants email; writer uses research"),)
    assert set(decision.waiting) == {
        Waiting("writer", None, ("research",)),
        Waiting("checker", None, ("draft", "research")),
        Waiting("formatter", None, ("draft", "check")),
    }
    assert not decision.skipped
    assert not decision.finished


def test_an_agent_that_a_rule_wants_itself_says_only_the_rule() -> None:
    [start] = decide(Facts("new"), [rule("research", "Look it up")], MAIL).start
    assert start.why == "“Look it up” wants research"


@pytest.mark.parametrize(
    ("there", "starts"),
    [
        ((), {"researcher"}),
        (("research",), {"writer"}),
        (("research", "draft"), {"checker"}),
        (("research", "draft", "check"), {"formatter"}),
        (("draft",), {"researcher"}),
        (("draft", "check"), {"formatter"}),
        (("research", "draft", "check", "email"), set()),
        (("email",), set()),
    ],
)
def test_each_output_lets_the_next_agent_start(there: tuple[str, ...], starts: set[str]) -> None:
    decision = decide(Facts("new", outputs(*there)), FIRST_MAIL, MAIL)
    assert started(decision) == {(slug, None) for slug in starts}
    assert decision.finished == (not starts)


def test_independent_agents_start_side_by_side() -> None:
    agents = [agent("a"), agent("b"), agent("c", needs="a", uses="b")]
    assert started(decide(Facts("new"), [rule("c")], agents)) == {("a", None), ("b", None)}


@pytest.mark.parametrize("changes", [{"is_stale": True}, {"verdict": "rejected"}, {"verdict": "approved"}])
def test_a_current_output_is_not_wanted_again_whatever_became_of_it(changes: dict[str, object]) -> None:
    there = OutputFact("email", **changes)  # type: ignore[arg-type]
    assert decide(Facts("new", (there,)), FIRST_MAIL, MAIL).finished


def test_an_active_agent_is_neither_started_again_nor_finished() -> None:
    decision = decide(Facts("new", runs=(run("researcher", "active"),)), FIRST_MAIL, MAIL)
    assert not decision.start
    assert not decision.finished
    assert Waiting("writer", None, ("research",)) in decision.waiting


def test_a_failed_agent_stands_and_those_that_use_it_go_on() -> None:
    decision = decide(Facts("new", runs=(run("researcher", "failed"),)), FIRST_MAIL, MAIL)
    assert started(decision) == {("writer", None)}


def test_those_that_need_what_a_failed_agent_writes_are_skipped_in_turn() -> None:
    facts = Facts("new", outputs("research"), (run("writer", "failed"),))
    decision = decide(facts, FIRST_MAIL, MAIL)
    assert decision.skipped == (Skipped("formatter", None, ("draft",)),)
    assert decision.finished


def test_a_skipped_agent_says_how_far_back_the_loss_lies() -> None:
    agents = [agent("a"), agent("b", needs="a"), agent("c", needs="b")]
    decision = decide(Facts("new", runs=(run("a", "failed"),)), [rule("c")], agents)
    assert set(decision.skipped) == {Skipped("c", None, ("b",)), Skipped("b", None, ("a",))}


def test_a_skipped_agent_pulls_nothing_that_costs_money() -> None:
    agents = [agent("a"), agent("needed"), agent("used"), agent("c", needs="a needed", uses="used")]
    decision = decide(Facts("new", runs=(run("a", "failed"),)), [rule("c")], agents)
    assert not decision.start
    assert decision.finished


def test_a_skipped_agent_does_not_hold_up_those_that_only_use_it() -> None:
    agents = [agent("a"), agent("b", needs="a"), agent("c", uses="b")]
    decision = decide(Facts("new", runs=(run("a", "failed"),)), [rule("c")], agents)
    assert started(decision) == {("c", None)}
    assert decision.skipped == (Skipped("b", None, ("a",)),)


def test_a_disabled_agent_is_settled_for_users_and_lost_for_those_in_need() -> None:
    agents = [agent("a", is_enabled=False), agent("b", uses="a"), agent("c", needs="a")]
    decision = decide(Facts("new"), [rule("b c")], agents)
    assert started(decision) == {("b", None)}
    assert decision.skipped == (Skipped("c", None, ("a",)),)


def test_an_active_run_of_an_agent_disabled_since_is_still_on_its_way() -> None:
    agents = [agent("a", is_enabled=False), agent("b", uses="a")]
    decision = decide(Facts("new", runs=(run("a", "active"),)), [rule("b")], agents)
    assert decision.waiting == (Waiting("b", None, ("a",)),)


def test_a_key_that_a_replaced_agent_is_still_writing_is_written_by_nobody_else_and_its_inputs_are_not_bought() -> None:
    team = [agent("old", "draft", is_enabled=False), agent("new", "draft", uses="research"), agent("research")]
    decision = decide(Facts("new", runs=(run("old", "active"),)), [rule("draft")], team)
    assert (started(decision), decision.waiting, decision.finished) == (set(), (), False)
    # What failed, or waits in the queue of an agent that nobody enables, comes to nothing.
    for lost in (RunFact("old", None, "failed"), RunFact("old", None, "active", is_running=False)):
        assert started(decide(Facts("new", runs=(lost,)), [rule("draft")], team)) == {("research", None)}


def test_a_key_that_nobody_writes_cannot_come() -> None:
    agents = [agent("b", uses="ghost"), agent("c", needs="ghost")]
    decision = decide(Facts("new"), [rule("b c ghost")], agents)
    assert started(decision) == {("b", None)}
    assert decision.skipped == (Skipped("c", None, ("ghost",)),)


def test_a_key_that_nobody_writes_counts_when_a_person_wrote_it() -> None:
    agents = [agent("c", needs="ghost")]
    facts = Facts("new", outputs("ghost"), triggers=(trigger(4),))
    assert started(decide(facts, [rule("c")], agents)) == {("c", None)}
    assert started(decide(facts, [rule("c", trigger=["reply"])], agents)) == {("c", 4)}


def test_a_writer_that_is_enabled_comes_before_one_that_is_not() -> None:
    agents = [agent("old", "draft", is_enabled=False), agent("new", "draft")]
    assert started(decide(Facts("new"), [rule("draft")], agents)) == {("new", None)}


# --- Occasions ----------------------------------------------------------------------------------------------


def test_what_a_trigger_asks_for_is_made_for_it_and_what_the_item_has_is_shared() -> None:
    facts = Facts("replied", outputs("research", "draft", "check", "email"), triggers=(trigger(7),))
    decision = decide(facts, ANSWER, MAIL)
    assert started(decision) == {("answerer", 7)}
    assert {(one.agent, one.occasion) for one in decision.waiting} == {("checker", 7), ("formatter", 7)}


def test_the_missing_output_of_the_item_is_made_for_the_item_whoever_asks() -> None:
    decision = decide(Facts("replied", triggers=(trigger(7),)), ANSWER, MAIL)
    assert started(decision) == {("researcher", None)}


def test_each_kind_of_occasion_has_its_own_writer() -> None:
    both = [rule("draft"), rule("draft", trigger=["reply"])]
    facts = Facts("new", outputs("research"), triggers=(trigger(7),))
    assert started(decide(facts, both, MAIL)) == {("writer", None), ("answerer", 7)}


def test_the_item_s_own_mail_does_not_answer_a_reply() -> None:
    facts = Facts("new", outputs("research", "draft"), triggers=(trigger(7),))
    assert started(decide(facts, [rule("draft", trigger=["reply"])], MAIL)) == {("answerer", 7)}


def test_what_is_being_written_for_the_item_is_waited_for_where_nobody_writes_it_for_the_occasion() -> None:
    team = [agent("pricer", "offer", serves="item"), agent("answerer", "draft", needs="offer")]
    facts = Facts("new", runs=(run("pricer", "active"),), triggers=(trigger(4),))
    decision = decide(facts, [rule("draft", trigger=["reply"])], team)
    assert decision.waiting == (Waiting("answerer", 4, ("offer",)),)
    assert (decision.skipped, decision.handled) == ((), ())


def test_a_failure_for_one_occasion_says_nothing_about_another() -> None:
    facts = Facts("new", outputs("research"), (run("checker", "failed", 3),), (trigger(7),))
    facts = Facts(facts.status, (*facts.outputs, OutputFact("draft", 7)), facts.runs, facts.triggers)
    assert started(decide(facts, ANSWER, MAIL)) == {("checker", 7)}


def test_an_agent_made_once_for_the_item_is_pulled_only_for_the_kinds_it_serves() -> None:
    agents = [agent("researcher", "research", scope="item", serves="item"), *MAIL[1:]]
    decision = decide(Facts("replied", triggers=(trigger(7),)), ANSWER, agents)
    assert started(decision) == {("answerer", 7)}


def test_what_is_made_for_the_item_is_made_from_what_the_item_has() -> None:
    agents = [agent("profiler", "profile", needs="draft", scope="item"), *MAIL]
    facts = Facts("new", outputs("research", ("draft", 7)), triggers=(trigger(7),))
    decision = decide(facts, [rule("profile", trigger=["reply"])], agents)
    assert started(decision) == {("writer", None)}
    assert decision.waiting == (Waiting("profiler", None, ("draft",)),)


def test_the_oldest_due_trigger_comes_first_whatever_order_they_stand_in() -> None:
    facts = Facts("replied", outputs("research"), triggers=(trigger(9), trigger(5), trigger(7)))
    assert started(decide(facts, ANSWER, MAIL)) == {("answerer", 5)}


def test_the_oldest_of_several_kinds_is_the_one() -> None:
    both = [rule("check", trigger=["decision", "reply"])]
    agents = [agent("checker", "check")]
    facts = Facts("replied", triggers=(trigger(9, "decision"), trigger(8, "reply")))
    assert started(decide(facts, both, agents)) == {("checker", 8)}


def test_a_trigger_that_lies_in_the_future_asks_for_nothing_and_is_kept() -> None:
    decision = decide(Facts("replied", triggers=(trigger(7, is_due=False),)), ANSWER, MAIL)
    assert decision.finished
    assert (decision.handled, decision.noted) == ((), ())


# --- Handled and noted --------------------------------------------------------------------------------------


def test_a_trigger_is_handled_once_everything_wanted_for_it_is_there() -> None:
    facts = Facts("replied", outputs(("draft", 7), ("email", 7)), triggers=(trigger(7), trigger(8)))
    decision = decide(facts, ANSWER, MAIL)
    assert decision.handled == (7,)
    assert not decision.finished
    assert started(decide(begin(facts, decision), ANSWER, MAIL)) == {("researcher", None)}


def test_a_trigger_is_handled_too_when_what_it_wants_cannot_come() -> None:
    facts = Facts("replied", outputs("research"), (run("answerer", "failed", 7),), (trigger(7),))
    decision = decide(facts, ANSWER, MAIL)
    assert decision.handled == (7,)
    assert {one.agent for one in decision.skipped} == {"formatter"}


def test_a_trigger_is_not_handled_while_one_of_its_rules_still_waits() -> None:
    rules = [rule("draft", "reads", trigger=["reply"]), rule("email", "answers", trigger=["reply"])]
    facts = Facts("replied", outputs("research", ("draft", 7)), triggers=(trigger(7),))
    assert decide(facts, rules, MAIL).handled == ()


def test_a_trigger_that_no_rule_mentions_is_noted_when_it_is_due() -> None:
    facts = Facts("new", triggers=(trigger(4, "schedule"), trigger(5, "created", is_due=False)))
    decision = decide(facts, ANSWER, MAIL)
    assert decision.noted == (4,)
    assert decision.finished


def test_a_trigger_whose_rule_does_not_hold_now_stays_open() -> None:
    rules = [rule("email", trigger=["reply"], status=["replied"])]
    decision = decide(Facts("opted_out", triggers=(trigger(7),)), rules, MAIL)
    assert (decision.handled, decision.noted, decision.finished) == ((), (), True)


def test_a_trigger_waits_for_a_rule_that_is_still_at_work_for_an_older_one() -> None:
    rules = [rule("draft", "reads", trigger=["reply"]), rule("log", "logs", trigger=["decision", "reply"])]
    agents = [agent("answerer", "draft"), agent("scribe", "log")]
    both = (trigger(3, "decision"), trigger(5))
    facts = Facts("replied", outputs(("draft", 5)), (run("scribe", "active", 3),), both)
    assert decide(facts, rules, agents).handled == ()
    done = Facts("replied", outputs(("draft", 5), ("log", 3)), triggers=both)
    assert decide(done, rules, agents).handled == (3,)
    after = Facts("replied", done.outputs, triggers=(trigger(5),))
    assert started(decide(after, rules, agents)) == {("scribe", 5)}


def test_a_trigger_does_not_wait_for_a_rule_that_does_not_hold_for_an_older_one() -> None:
    rules = [
        rule("draft", "reads", trigger=["reply"]),
        rule("log", "logs", trigger=["decision", "reply"], status=["won"]),
    ]
    agents = [agent("answerer", "draft"), agent("scribe", "log")]
    facts = Facts("replied", outputs(("draft", 5)), triggers=(trigger(3, "decision"), trigger(5)))
    assert decide(facts, rules, agents).handled == (5,)


# --- Circles ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agents", "starts", "skips"),
    [
        pytest.param([agent("a", needs="a")], "", "a", id="needs itself"),
        pytest.param([agent("a", uses="a")], "a", "", id="uses itself"),
        pytest.param([agent("a", needs="b"), agent("b", needs="a")], "", "a b", id="need each other"),
        pytest.param([agent("a", uses="b"), agent("b", uses="a")], "a", "", id="use each other"),
        pytest.param([agent("a", needs="b"), agent("b", uses="a")], "b", "", id="needs one that uses it"),
        pytest.param([agent("a", uses="b"), agent("b", needs="a")], "a", "", id="uses one that needs it"),
        pytest.param(
            [agent("a", uses="b"), agent("b", needs="c"), agent("c", needs="b")],
            "a",
            "b c",
            id="uses one of a circle",
        ),
    ],
)
def test_a_circle_is_broken_where_a_key_is_only_used(agents: list[AgentView], starts: str, skips: str) -> None:
    decision = decide(Facts("new"), [rule("a")], agents)
    assert {one.agent for one in decision.start} == set(starts.split())
    assert {one.agent for one in decision.skipped} == set(skips.split())


def test_an_output_that_is_there_opens_a_circle() -> None:
    agents = [agent("a", needs="c"), agent("b", uses="a"), agent("c", uses="b")]
    decision = decide(Facts("new", outputs("a")), [rule("c")], agents)
    assert started(decision) == {("b", None)}
    assert decision.waiting == (Waiting("c", None, ("b",)),)


def test_what_runs_already_opens_a_circle() -> None:
    agents = [agent("a", uses="b"), agent("b", uses="a")]
    decision = decide(Facts("new", runs=(run("b", "active"),)), [rule("a")], agents)
    assert decision.waiting == (Waiting("a", None, ("b",)),)


# --- Rules --------------------------------------------------------------------------------------------------


def test_without_rules_nothing_is_wanted() -> None:
    assert decide(Facts("new"), [], MAIL).finished


def test_only_what_matching_rules_want_is_made() -> None:
    rules = [rule("research", status=["new"]), rule("email", status=["qualified"])]
    assert started(decide(Facts("new"), rules, MAIL)) == {("researcher", None)}


def test_two_rules_that_want_the_same_start_it_once_and_the_first_is_named() -> None:
    rules = [rule("research", "One"), rule("research", "Two")]
    [start] = decide(Facts("new"), rules, MAIL).start
    assert start.why == "“One” wants research"


def test_the_reason_fits_its_column_at_the_longest_names() -> None:
    slug, key = "s" * 50, "k" * 50
    agents = [AgentView(slug, key, needs=("n" * 50,)), AgentView("w", "n" * 50)]
    [start] = decide(Facts("new"), [RuleView("r" * 120, {}, (key,))], agents).start
    assert len(start.why) <= 300


def test_a_router_tells_which_rules_hold_and_for_what() -> None:
    rules = [rule("email", "first"), rule("email", "answer", trigger=["reply"]), rule("email", status=["x"])]
    held = Router(rules, MAIL).matching(Facts("new", triggers=(trigger(7),)))
    assert [(one.name, occasion) for one, occasion in held] == [("first", None), ("answer", 7)]


def test_equal_facts_make_equal_decisions() -> None:
    router = Router(FIRST_MAIL, MAIL)
    assert router.decide(Facts("new")) == decide(Facts("new"), FIRST_MAIL, MAIL)
