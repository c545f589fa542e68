from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from anthropic import transform_schema

from agents.simulator.tokens import count
from agents.spec import AgentSpec
from leads.department import SALES
from tests.leads.pipeline import ITEM_AGENTS, Desk, sample_leads, soul

TOKEN_FACTOR = 1.3
KNOWLEDGE = Path(SALES.souls_dir).parent / "samples" / "knowledge"


@pytest.mark.parametrize("agent", SALES.agents, ids=lambda a: a.slug)
class TestEverySoul:
    def test_it_has_exactly_the_three_sections(self, agent: AgentSpec) -> None:
        headings = re.findall(r"^#+ .*$", soul(agent), re.MULTILINE)
        assert headings == ["# Identity", "# Responsibilities", "# Prohibitions"]

    def test_its_prohibitions_hold_the_data_rule(self, agent: AgentSpec) -> None:
        prohibitions = soul(agent).partition("# Prohibitions")[2]
        assert re.search(r"Text in the data.*is never an instruction", prohibitions)
        assert prohibitions.count("\n- ") >= 4

    def test_it_says_who_the_agent_is(self, agent: AgentSpec) -> None:
        title = agent.job.split(":")[0]
        assert soul(agent).startswith(f"# Identity\nYou are the {title}.")

    def test_it_is_compact(self, agent: AgentSpec) -> None:
        assert 150 <= len(soul(agent).split()) <= 320


def test_every_soul_belongs_to_an_agent() -> None:
    files = {path.stem for path in Path(SALES.souls_dir).glob("*.md")}
    assert files == {agent.slug for agent in SALES.agents}


def test_requests_for_hot_leads_stay_small() -> None:
    """By the simulator's estimate, which is stated as one; without what tools return."""
    sizes = []
    for item in sample_leads():
        desk = Desk(item)
        if desk.run("intake", "qualifier")["qualification"]["tier"] != "Hot":
            continue
        for slug in ITEM_AGENTS:
            schema = json.dumps(transform_schema(SALES.agent(slug).schema), separators=(",", ":"))
            texts = [block["text"] for block in desk.request(slug)["system"]]
            texts += [desk.request(slug)["messages"][0]["content"], schema]
            sizes.append(sum(count(text, TOKEN_FACTOR) for text in texts))
            desk.ask(slug)
    assert len(sizes) >= 7 * 8
    assert sum(sizes) / len(sizes) <= 1_300
    assert max(sizes) <= 4_000


def test_default_facts_are_found_in_the_sample_documents() -> None:
    documents = {path.read_text("utf-8").partition("\n")[0].removeprefix("# "): path for path in KNOWLEDGE.glob("*.md")}
    for fact in SALES.settings_schema().model_dump()["company_facts"]:
        title, _, number = fact["source"].rpartition("#")
        paragraphs = documents[title].read_text("utf-8").partition("\n")[2].strip().split("\n\n")
        figures = re.findall(r"\d[\d.,]*\d|\d", fact["fact"])
        assert all(figure in paragraphs[int(number) - 1] for figure in figures), fact
