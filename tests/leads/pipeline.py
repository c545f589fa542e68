"""The sales agents over one lead without engine and network: each is asked with the request it would get."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anthropic import transform_schema

import leads.simulated  # noqa: F401 - registers the answers
from agents.prompts import AgentInput, settings_text, system_blocks, user_message
from agents.simulator.answers import answer, read_question
from agents.spec import AgentSpec
from leads.department import SALES
from leads.schemas import SalesSettings

LEADS_CSV = Path(SALES.souls_dir).parent / "samples" / "leads.csv"
ITEM_AGENTS = ("intake", "qualifier", "researcher", "strategist", "writer", "fact_checker", "formatter")
KINDS_OF_OCCASION = ("item", "created", "reply", "follow_up", "decision", "schedule", "operator", "resume")
_COLUMNS = {
    "Email": "email",
    "Company Name": "company",
    "Job Title": "title",
    "Phone Number": "phone",
    "Website URL": "website",
    "Country/Region": "country",
    "Lead Source": "source",
    "Message": "message",
}


def sample_leads() -> list[dict[str, Any]]:
    """The shipped sample leads as ``load_fields`` would give them, rejected and duplicate rows included."""
    with LEADS_CSV.open(encoding="utf-8", newline="") as file:
        return [_lead(row) for row in csv.DictReader(file)]


def _lead(row: Mapping[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {ours: row[theirs].strip() for theirs, ours in _COLUMNS.items()}
    fields["name"] = f"{row['First Name']} {row['Last Name']}".strip()
    extra = ("Number of Employees", "Industry")
    return {**fields, "attributes": {name: row[name] for name in extra if row[name]}, "tags": []}


def lead(**changes: Any) -> dict[str, Any]:
    """A lead with a concrete need; ``changes`` overwrite its fields."""
    return {**sample_leads()[0], **changes}


@dataclass
class Desk:
    """One lead, what was written for it so far, and what the agents are asked."""

    item: dict[str, Any]
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=lambda: SalesSettings().model_dump(mode="json"))
    seed: int = 1

    def request(self, slug: str, **extra: Any) -> dict[str, Any]:
        """The body of the request: what the agent declares and nothing else."""
        spec = SALES.agent(slug)
        data = AgentInput(
            item={name: self.item[name] for name in spec.fields if self.item.get(name)},
            outputs={key: self.outputs[key] for key in (*spec.needs, *spec.uses) if key in self.outputs},
            **extra,
        )
        return {
            "model": spec.model,
            "system": system_blocks(
                soul(spec),
                spec.writes,
                settings_text(self.settings, spec.settings),
                has_tools=bool(spec.tools),
            ),
            "messages": [{"role": "user", "content": user_message(data, spec.writes)}],
        }

    def ask(self, slug: str, tool_results: tuple[str, ...] = (), **extra: Any) -> dict[str, Any]:
        """The agent's answer, valid for its schema, kept as the current output."""
        spec = SALES.agent(slug)
        body = self.request(slug, **extra)
        for number, result in enumerate(tool_results):
            call = {"type": "tool_use", "id": f"t{number}", "name": spec.tools[number], "input": {}}
            back = {"type": "tool_result", "tool_use_id": f"t{number}", "content": result}
            body["messages"] += [
                {"role": "assistant", "content": [call]},
                {"role": "user", "content": [back]},
            ]
        raw = answer(read_question(body, self.seed), transform_schema(spec.schema))
        payload = spec.schema.model_validate(raw).model_dump(mode="json")
        assert payload == raw, "the simulator had to change what the book answered"
        self.outputs[spec.writes] = payload
        return payload

    def run(self, *slugs: str) -> dict[str, dict[str, Any]]:
        """Ask several agents in turn; every output so far."""
        for slug in slugs:
            self.ask(slug)
        return self.outputs


def soul(spec: AgentSpec) -> str:
    """The text of the default SOUL."""
    return (Path(SALES.souls_dir) / f"{spec.slug}.md").read_text(encoding="utf-8")


def desks() -> Iterator[Desk]:
    """One desk for each sample lead."""
    for item in sample_leads():
        yield Desk(item)
