"""What the card of a question promises and says: on an item that rests, after a rewriting, and about a budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from agents.budgets import wait_head
from agents.models import Budget, Department, Member
from runs.gate_alerts import tell_budgets
from runs.models import DraftGroup, Item, OutboxMessage, Output, Review, SendBack
from runs.outbox import channel_of
from runs.send_conditions import Then, why_not
from runs.send_situation import situation
from tests.factories import make_agent_run, make_department, make_lead, make_output, make_review, make_user
from tests.runs.desk import item_of, mail_of, make_drafted
from tests.runs.scene import HTMX
from tests.runs.test_spending import make_budget, make_waiting

pytestmark = pytest.mark.django_db
Show = Callable[..., str]


@pytest.fixture
def sales() -> Department:
    department = make_department()
    for name, role in (("rudi", Member.Role.REVIEWER), ("ada", Member.Role.ADMINISTRATOR)):
        make_user(name, department=department, role=role)
    return department


@pytest.fixture
def show(sales: Department) -> Show:
    """The card as one of the people sees it."""

    def shown(review: Review, who: str = "rudi") -> str:
        return client_of(sales, who).get(reverse("runs:review", args=[review.pk])).content.decode()

    return shown


def client_of(department: Department, who: str) -> Client:
    client = Client()
    client.force_login(Member.objects.get(department=department, user__username=who).user)
    return client


def box(html: str, answer: str) -> str:
    return html.split(f'id="box-{answer}"')[1].split('id="box-')[0]


def rest(item: Item, to: str = "paused", reason: str = "Call first.") -> None:
    Item.objects.filter(pk=item.pk).update(automation=to, automation_reason=reason)


# --- An item that rests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("to", "label"), [("paused", "paused"), ("taken_over", "taken over")])
def test_on_an_item_that_rests_no_answer_promises_what_will_not_happen(show: Show, to: str, label: str) -> None:
    review = make_drafted()
    rest(item_of(review), to)
    html = show(review)
    waits = f"It waits in the outbox until the automation goes on. It is {label}: Call first."
    assert waits in box(html, "approve")
    assert waits in box(html, "approve_edited")
    again = f"It is {label}: Call first. Once the automation goes on: it is written again with your note"
    assert again in box(html, "send_back")
    assert "undo time" not in html
    assert "Your text leaves" not in html
    badge = html.split('id="review-automation"')[1].split("</div>")[0]
    assert label in badge
    assert "Nothing starts until a person says so" in badge


def test_on_an_active_item_there_is_no_such_badge(show: Show) -> None:
    html = show(make_drafted())
    assert 'id="review-automation"' not in html
    assert "It leaves the house after the undo time" in html


def test_what_is_said_of_an_approved_mail_of_a_paused_item_is_what_happens(sales: Department) -> None:
    review = make_drafted()
    rest(item_of(review))
    url = reverse("runs:review_approve", args=[review.pk])
    html = client_of(sales, "rudi").post(url, {"queue": ""}, headers=HTMX).content.decode()
    assert "It waits in the outbox until the automation goes on. It is paused: Call first." in html
    assert "undo time" not in html
    row = OutboxMessage.objects.select_related("output__trigger", "department").get(output=mail_of(review))
    channel = channel_of(row.department, row.channel)
    hold = why_not(situation(row, item_of(review), channel, now=timezone.now()))
    assert hold is not None
    assert (hold.then, hold.reason) == (Then.WAIT, "The automation is paused: Call first.")


def test_sent_back_on_a_paused_item_it_says_that_nothing_starts(sales: Department) -> None:
    review = make_drafted()
    rest(item_of(review))
    url = reverse("runs:review_send_back", args=[review.pk])
    html = client_of(sales, "rudi").post(url, {"queue": "", "note": "Shorter."}, headers=HTMX).content.decode()
    assert "It is paused: Call first. Nothing starts before the automation goes on." in html


def test_a_retry_on_a_paused_item_says_that_it_waits(show: Show) -> None:
    item = make_lead(automation="paused").item
    run = make_agent_run(item, "qualifier", status="failed")
    review = make_review(item, kind="failure", agent_run=run, output=None)
    html = show(review, "ada")
    assert "It is paused. Once the automation goes on: the step gets all its tries again." in box(html, "retry")
    assert "It is paused. Once the automation goes on: the work goes on without it" in box(html, "accept")


def test_on_a_closed_item_it_says_why_a_mail_is_not_approved_and_keeps_what_was_typed(
    sales: Department, show: Show
) -> None:
    review = make_drafted()
    rest(item_of(review), "closed")
    why = "It is closed. Reopen it first."
    html = show(review)
    assert why in box(html, "approve")
    assert why in box(html, "approve_edited")
    assert why not in box(html, "reject")
    url, typed = reverse("runs:review_approve_edited", args=[review.pk]), {"text_body": "Dear Lena, as agreed."}
    response = client_of(sales, "rudi").post(url, {**typed, "queue": ""})
    assert response.status_code == 409
    html = response.content.decode()
    assert f"{why} Nothing was changed." in html
    assert "Dear Lena, as agreed." in box(html, "approve_edited")
    assert not OutboxMessage.objects.exists()


def test_of_drafts_that_are_alike_it_names_those_that_stay(sales: Department) -> None:
    first, second = make_drafted(), make_drafted()
    rest(item_of(second))
    group = _group(sales, first, second)
    data: dict[str, Any] = {"review": [first.pk, second.pk]}
    for review in (first, second):
        email = item_of(review).lead.email
        data |= {f"output_{review.pk}": review.output_id, f"to_{review.pk}": email}
    url = reverse("runs:review_group_approve", args=[group])
    html = client_of(sales, "rudi").post(url, data, headers=HTMX).content.decode()
    assert "2 approved." in html
    assert f"Only once their automation goes on: {item_of(second)}." in html


def _group(department: Department, *reviews: Review) -> int:
    agent = department.agents.get(slug="formatter")
    fields = {"department": department, "agent": agent, "purpose": "item", "signature": [1]}
    group = DraftGroup.objects.create(**fields, used_at=timezone.now())
    Review.objects.filter(pk__in=[review.pk for review in reviews]).update(group=group)
    return int(group.pk)


# --- Sent back ------------------------------------------------------------------------------------------------


def asked_again(payload: dict[str, Any] | None = None, **fields: Any) -> Review:
    """The question about the mail that was written after the first was sent back."""
    first = make_drafted()
    old = mail_of(first)
    SendBack.objects.create(item=old.item, key="draft", output=old, review=first, note="Shorter.")
    Output.objects.filter(pk=old.pk).update(is_current=False)
    Review.objects.filter(pk=first.pk).update(status="answered", answer="send_back")
    new = make_output(old.item, "email", number=2, payload={**old.payload, **(payload or {})}, **fields)
    return make_review(old.item, output=new)


def since(html: str) -> str:
    return html.split('id="review-since"')[1].split("</section>")[0]


def test_what_has_changed_since_stands_under_the_mail(show: Show) -> None:
    html = show(asked_again({"body": "Quite another text."}))
    assert "<h3>Body</h3>" in since(html)
    assert "<ins>Quite" in since(html)
    assert "Subject" not in since(html)
    assert html.index('class="k-mail"') < html.index('id="review-since"') < html.index('id="review-answers"')


def test_where_nothing_has_changed_since_it_says_so(show: Show) -> None:
    assert "Nothing in the text has changed since." in since(show(asked_again()))


def test_what_cannot_be_compared_says_why(show: Show) -> None:
    review = asked_again()
    SendBack.objects.update(review=None)
    assert "not on record any more" in since(show(review))
    review = asked_again()
    Output.objects.filter(reviews=review).update(replaces=SendBack.objects.latest("pk").output)
    assert "because a person has edited it since" in since(show(review))


def test_what_was_never_sent_back_says_nothing_of_it(show: Show) -> None:
    assert 'id="review-since"' not in show(make_drafted())
    asked_again()
    assert 'id="review-since"' not in show(Review.objects.get(answer="send_back")), "nor what was sent back itself"


# --- Work that goes round in circles --------------------------------------------------------------------------


def test_a_question_about_a_loop_says_that_its_steps_go_on(sales: Department, show: Show) -> None:
    item = make_lead(sales).item
    review = make_review(item, kind="budget", cause="loop", output=None, ask="Shall the work on it go on?")
    html = show(review, "ada")
    assert "What goes round in circles waits until somebody answers" in html
    assert "Let it go on" in box(html, "dismiss")
    assert "Its steps go on within a minute. You are asked again" in box(html, "dismiss")
    assert "Nothing is done" not in html
    assert "Agents stop here" in box(html, "take_over")
    rest(item)
    assert "It is paused: Call first. Once the automation goes on: its steps go on" in box(show(review), "dismiss")


@pytest.mark.parametrize(
    ("to", "said"), [("active", "Its steps go on within a minute."), ("paused", "Nothing starts before the automation")]
)
def test_an_answer_about_a_loop_says_what_follows(sales: Department, to: str, said: str) -> None:
    item = make_lead(sales).item
    review = make_review(item, kind="budget", cause="loop", output=None)
    rest(item, to)
    url = reverse("runs:review_dismiss", args=[review.pk])
    html = client_of(sales, "rudi").post(url, {"queue": ""}, headers=HTMX).content.decode()
    assert said in html


def test_other_questions_that_are_put_aside_start_nothing(sales: Department, show: Show) -> None:
    review = make_review(make_lead(sales).item, kind="fell_through", output=None)
    assert "Nothing is done about it now." in box(show(review), "dismiss")


# --- A budget -------------------------------------------------------------------------------------------------


@pytest.fixture
def budget(sales: Department) -> Budget:
    budget = make_budget("9.9", department=sales, agent=sales.agents.get(slug="writer"))
    runs = [make_waiting(budget), make_waiting(budget)]
    tell_budgets([(sales.pk, runs[0].waiting_for)])
    return budget


def test_a_question_about_a_budget_has_its_facts_and_leads_an_administrator_to_its_row(
    show: Show, budget: Budget
) -> None:
    html = show(Review.objects.get(kind="budget"), "ada")
    facts = html.split('id="review-budget"')[1].split("</dl>")[0]
    assert "Sales, Writer, a day" in facts
    assert "9.90" in facts
    assert "(99 %)" in facts
    assert "<dt>Turns</dt><dd><time" in facts
    assert "2 steps wait for it" in facts
    assert f'<a class="btn btn-primary" href="/costs/#budget-{budget.pk}">' in html
    assert "btn-primary" not in box(html, "dismiss")
    assert "Who can raise it" not in html
    costs = client_of(budget.department, "ada").get("/costs/").content.decode()
    assert f'id="budget-{budget.pk}"' in costs


def test_who_cannot_raise_it_is_told_who_can(show: Show, budget: Budget) -> None:
    html = show(Review.objects.get(kind="budget"))
    assert "Who can raise it, or allow more once: ada." in html
    assert f'<a href="/costs/#budget-{budget.pk}">Look at it' in html
    assert "2 steps wait for it" in html
    Member.objects.filter(user__username="ada").delete()
    assert "this department has none" in show(Review.objects.get(kind="budget"))


def test_a_budget_that_was_deleted_since_still_has_a_card(show: Show, budget: Budget) -> None:
    assert wait_head(budget) in Review.objects.get(kind="budget").cause
    budget.delete()
    assert 'href="/costs/#budgets"' in show(Review.objects.get(kind="budget"), "ada")
