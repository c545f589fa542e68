"""A small kind of department for tests of what every kind has in common: nothing in it knows what a lead is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agents.spec import AgentSpec, DepartmentSpec, Facts, RuleSpec, StatusSpec

HAIKU = "claude-haiku-5-5"


class Fact(BaseModel):
    model_config = ConfigDict(extra="forbid")

    statement: str = Field(min_length=1)
    source: str = Field(min_length=1)


class DeskSettings(BaseModel):
    """One setting of each shape that the settings form knows."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    company: str = Field(default="Acme", min_length=1, max_length=60)
    guide: str = "Be brief."
    words: int = Field(default=100, ge=10, le=500)
    greet: bool = True
    days: list[int] = Field(default=[4, 7], max_length=3)
    stops: list[Literal["reply", "decision"]] = Field(default=["reply"])
    facts: list[Fact] = Field(default=[Fact(statement="We ship", source="Catalogue#1")])
    limits: dict[str, int] = Field(default={"day": 3})


class Sorted(BaseModel):
    reasoning_summary: str
    topic: str


class Answer(BaseModel):
    reasoning_summary: str
    text: str


def status(facts: Facts) -> str:
    return "done" if any(output.key == "answer" for output in facts.outputs) else "new"


def load_fields(item_ids: Iterable[int]) -> dict[int, dict[str, Any]]:
    return {pk: {"question": "Why?"} for pk in item_ids}


AGENTS = (
    AgentSpec(
        slug="sorter",
        job="Sorter: says what a question is about",
        model=HAIKU,
        writes="topic",
        schema=Sorted,
        fields=("question",),
        facets=("topic",),
        scope="item",
        reports_to="answerer",
    ),
    AgentSpec(
        slug="answerer",
        job="Answerer: answers it",
        model="claude-sonnet-5-5",
        fallback_models=("claude-opus-5-5",),
        writes="answer",
        schema=Answer,
        uses=("topic",),
        fields=("question", "name"),
        settings=("company", "guide"),
        tools=("search_knowledge",),
        serves=("item",),
        output_policy="review",
    ),
    AgentSpec(
        slug="replier",
        job="Replier: answers what is asked next",
        model="claude-sonnet-5-5",
        writes="answer",
        schema=Answer,
        serves=("reply",),
        reports_to="answerer",
    ),
)


def write_souls(directory: Path) -> None:
    """The default SOULs of the kind, one file an agent."""
    for agent in AGENTS:
        (directory / f"{agent.slug}.md").write_text(
            f"# Identity\nYou are the {agent.slug}.\n\n"
            f"# Responsibilities\n- Write the {agent.writes}.\n\n"
            "# Prohibitions\n- Invent nothing.\n",
            encoding="utf-8",
        )


def desk_kind(souls_dir: Path, **changes: Any) -> DepartmentSpec:
    """The kind with its SOULs written to a directory; ``changes`` replace parts of the declaration."""
    write_souls(souls_dir)
    values: dict[str, Any] = {
        "kind": "desk",
        "label": "Desk",
        "item_label": "question",
        "agents": AGENTS,
        "rules": (
            RuleSpec("Sort what comes in", {"status": ["new"]}, ("topic",)),
            RuleSpec("Answer", {"status": ["new"], "has": ["topic"]}, ("answer",)),
            RuleSpec("Answer again", {"trigger": ["reply"]}, ("answer",)),
        ),
        "statuses": (StatusSpec("new", "New"), StatusSpec("done", "Done", "good", is_closing=True)),
        "settings_schema": DeskSettings,
        "souls_dir": str(souls_dir),
        "status": status,
        "effects": lambda event: (),
        "load_fields": load_fields,
        "final_key": "answer",
    }
    return DepartmentSpec(**{**values, **changes})
