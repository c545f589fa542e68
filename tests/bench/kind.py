"""A kind of department with six agents in a row, each of which needs what the one before it wrote."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from agents.spec import AgentSpec, DepartmentSpec, Facts, RuleSpec, StatusSpec
from runs.models import Item

KEYS = ("first", "second", "third", "fourth", "fifth", "sixth")
MODEL = "claude-haiku-5-5"


class Step(BaseModel):
    """One output of the benchmark: about as much as an agent of sales writes."""

    model_config = ConfigDict(extra="forbid")

    reasoning_summary: str = Field(description="What decided the answer, in at most three sentences.")
    finding: str = Field(description="One finding about the item, in two sentences.")
    score: int = Field(description="How sure it is, from 0 to 100.")


class Settings(BaseModel):
    """The settings of the benchmark's department."""

    company: str = "Bench & Co. makes benches for parks and measures them every spring."


def load_fields(item_ids: Iterable[int]) -> dict[int, dict[str, Any]]:
    """The only field is the title."""
    return {pk: {"title": title} for pk, title in Item.objects.filter(pk__in=list(item_ids)).values_list("pk", "title")}


def status(facts: Facts) -> str:
    """New until the last output is there."""
    return "done" if any(output.key == KEYS[-1] for output in facts.outputs) else "new"


BENCH = DepartmentSpec(
    kind="bench",
    label="Bench",
    item_label="item",
    agents=tuple(
        AgentSpec(
            slug=key,
            job=f"Agent {number}: writes the {key} output from the one before.",
            model=MODEL,
            writes=key,
            schema=Step,
            needs=(KEYS[number - 2],) if number > 1 else (),
            fields=("title",),
            settings=("company",),
            facets=("score",),
            scope="item",
        )
        for number, key in enumerate(KEYS, 1)
    ),
    rules=(RuleSpec("Everything", {"status": ["new"]}, (KEYS[-1],)),),
    statuses=(StatusSpec("new", "new"), StatusSpec("done", "done", "good", is_closing=True)),
    settings_schema=Settings,
    souls_dir=str(Path(__file__).parent / "souls"),
    status=status,
    effects=lambda event: (),
    load_fields=load_fields,
    final_key=KEYS[-1],
)
