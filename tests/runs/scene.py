"""A department with work in every state and the people who look at it; used by the tests of all pages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from agents.models import Department, Member
from leads.models import Lead
from runs.models import AgentRun, ModelCall, Output, PipelineRun, Review
from tests import factories

HTMX = {"HX-Request": "true"}


@dataclass(slots=True)
class Scene:
    """``failed`` is a failed step with its call and review; ``output`` a draft that ``review`` asks about."""

    department: Department
    operator: User
    viewer: User
    reviewer: User
    stranger: User
    lead: Lead
    run: PipelineRun
    failed: AgentRun
    call: ModelCall
    output: Output
    review: Review

    def client(self, user: User | None) -> Client:
        """A browser in which this person is signed in."""
        client = Client()
        if user is not None:
            client.force_login(user)
        return client


def make_scene() -> Scene:
    """Two departments; everything lies in the first, ``stranger`` belongs to the second."""
    department = factories.make_department()
    other = factories.make_department(slug="other")
    lead = factories.make_lead(department, status="drafted")
    item = lead.item
    run = factories.make_pipeline_run(item)
    done = factories.make_agent_run(item, "intake", status="done")
    factories.make_tool_call(factories.make_model_call(done))
    factories.make_output(item, "intake", agent_run=done)
    failed = factories.make_agent_run(item, "qualifier", status="failed")
    call = factories.make_model_call(failed, cause="timeout", error="No answer within 60 s.")
    factories.make_agent_run(item, "researcher", status="running")
    lost = timezone.now() - timedelta(seconds=40)
    factories.make_agent_run(item, "strategist", status="running", lease_expires_at=lost)
    factories.make_agent_run(item, "writer", waiting_for="The budget of the department is used up.")
    # Before the draft: what comes in after it takes its question back.
    trigger = factories.make_trigger(item, "reply")
    earlier = timezone.now() - timedelta(hours=1)
    factories.make_message(item, "in", trigger=trigger, body="Yes, <b>please</b>.", at=earlier)
    check = factories.make_output(item, "fact_check")
    output = factories.make_output(item, "email", made_from=[check.pk])
    factories.make_log_entry(item, pipeline_run=run, text="Wanted: intake.")
    factories.make_review(item, agent_run=failed, ask="The Qualifier failed: try again?")
    return Scene(
        department=department,
        operator=factories.make_user("olga", department=department),
        viewer=factories.make_user("vera", department=department, role=Member.Role.VIEWER),
        reviewer=factories.make_user("rudi", department=department, role=Member.Role.REVIEWER),
        stranger=factories.make_user("stan", department=other, role=Member.Role.ADMINISTRATOR),
        lead=lead,
        run=run,
        failed=failed,
        call=call,
        output=output,
        review=factories.make_review(item, output=output, ask="Send this mail?", risk=2),
    )


def settled(html: str) -> str:
    """HTML without what differs from one request to the next: tokens, and white space between lines."""
    html = re.sub(r'(name="(?:csrfmiddlewaretoken|delivery_id)" value=")[^"]*', r"\1", html)
    return "\n".join(line.strip() for line in html.splitlines() if line.strip())
