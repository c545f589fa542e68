"""The page of rules: what it shows, and moving, switching and deleting rules on it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from agents.models import Department, Member
from runs.models import Action, LogEntry, Rule
from runs.rule_editing import stamp
from tests.factories import make_agent_run, make_department, make_lead, make_output, make_rule, make_user
from tests.runs.scene import HTMX

pytestmark = pytest.mark.django_db


@pytest.fixture
def office() -> Department:
    return make_department(schedule="0 */6 * * *")


@pytest.fixture
def ada(office: Department) -> User:
    return make_user("ada", department=office, role=Member.Role.ADMINISTRATOR)


def browser(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def order(office: Department) -> list[str]:
    return list(office.rules.order_by("position", "pk").values_list("name", flat=True))


def page(user: User) -> str:
    return browser(user).get(reverse("runs:rules")).content.decode()


class TestList:
    def test_every_rule_is_a_sentence_in_its_order(self, office: Department, ada: User) -> None:
        html = page(ada)
        first = html.index("When the lead is new, the intake is wanted.")
        assert first < html.index("When a decision was made, the CRM update is wanted.")

    def test_it_says_for_how_many_a_rule_holds_and_when_it_was_used(self, office: Department, ada: User) -> None:
        for _ in range(3):
            make_lead(office, status="new")
        run = make_agent_run(make_lead(office, status="won").item, "intake", status="done")
        run.why = "“Classify what comes in” wants intake; qualifier uses intake"
        run.save()
        html = page(ada)
        row = html[html.index(f'id="rule-{office.rules.get(name="Classify what comes in").pk}"') :].split("</li>")[0]
        assert "holds for 3 now" in row
        assert "last set off a step" in row
        other = html[html.index(f'id="rule-{office.rules.get(name="Follow up").pk}"') :].split("</li>")[0]
        assert "holds for 0 now" in other
        assert "set off none of these steps" in other

    def test_a_disabled_rule_says_so(self, office: Department, ada: User) -> None:
        office.rules.filter(name="Follow up").update(is_enabled=False)
        assert "<b>disabled</b>" in page(ada)

    def test_everybody_reads_and_only_administrators_get_buttons(self, office: Department, ada: User) -> None:
        vera = make_user("vera", department=office, role=Member.Role.VIEWER)
        assert "When the lead is new" in page(vera)
        assert reverse("runs:rule_move", args=[office.rules.all()[0].pk]) not in page(vera)
        assert reverse("runs:rule_move", args=[office.rules.all()[0].pk]) in page(ada)

    def test_a_configuration_that_does_not_fit_is_told(self, office: Department, ada: User) -> None:
        office.agents.filter(slug="formatter").update(is_enabled=False)
        assert "who writes it, is disabled" in page(ada)

    def test_the_number_of_queries_does_not_depend_on_the_rules_or_items(self, office: Department, ada: User) -> None:
        client, url = browser(ada), reverse("runs:rules")
        client.get(url)

        def count() -> int:
            with CaptureQueriesContext(
                connection,
            ) as seen:
                client.get(url)
            return len(seen)

        make_lead(office)
        before = count()
        for _ in range(5):
            make_rule(office)
            make_output(make_lead(office).item, "intake")
        assert count() == before
        assert before <= 25


class TestMove:
    def test_it_moves_down_and_up_and_to_a_place(self, office: Department, ada: User) -> None:
        names = order(office)
        rule = office.rules.get(name=names[1])
        url = reverse("runs:rule_move", args=[rule.pk])
        client = browser(ada)
        response = client.post(url, {"by": "down"})
        assert response.status_code == 302
        assert response["Location"].endswith(f"#rule-{rule.pk}")
        assert order(office)[:3] == [names[0], names[2], names[1]]
        client.post(url, {"by": "up"})
        assert order(office) == names
        part = client.post(url, {"to": "1"}, headers=HTMX).content.decode()
        assert re.search(rf'id="rule-{rule.pk}-more"[^>]* autofocus', part), "the menu it was typed in is gone"
        assert part.count("autofocus") == 1
        assert "autofocus" not in client.post(url, {"by": "up"}, headers=HTMX).content.decode()
        assert order(office)[:2] == [names[1], names[0]]
        client.post(url, {"to": "99"})
        assert order(office)[-1] == names[1]
        action = Action.objects.order_by("-pk")[0]
        assert (action.verb, action.user, action.before, action.after) == (
            "rule_move",
            ada,
            {"position": 1},
            {"position": len(names)},
        )
        assert LogEntry.objects.filter(kind="rules", department=office).count() == 4

    def test_htmx_gets_the_list_as_the_page_shows_it(self, office: Department, ada: User) -> None:
        rule = office.rules.order_by("position")[1]
        response = browser(ada).post(reverse("runs:rule_move", args=[rule.pk]), {"by": "up"}, headers=HTMX)
        html = response.content.decode()
        assert "at place 1" in html
        part = html[html.index("<section") : html.index("</section>")]
        whole = page(ada)
        shown = whole[whole.index('<section class="k-card" id="rule-list"') :].split("</section>")[0]
        assert without_tokens(part) == without_tokens(shown)

    def test_the_first_one_stays_when_it_is_moved_up(self, office: Department, ada: User) -> None:
        names = order(office)
        url = reverse("runs:rule_move", args=[office.rules.get(name=names[0]).pk])
        response = browser(ada).post(url, {"by": "up"}, follow=True)
        assert "is at place 1 already" in response.content.decode()
        assert order(office) == names
        assert not Action.objects.exists()

    @pytest.mark.parametrize("data", [{}, {"to": "x"}, {"by": "sideways"}, {"to": "-1"}])
    def test_rubbish_moves_nothing(self, office: Department, ada: User, data: dict[str, str]) -> None:
        names = order(office)
        rule = office.rules.get(name=names[2])
        assert browser(ada).post(reverse("runs:rule_move", args=[rule.pk]), data).status_code == 302
        assert order(office) == names

    def test_get_is_refused_and_other_roles_find_nothing(self, office: Department, ada: User) -> None:
        refused(office, ada, reverse("runs:rule_move", args=[office.rules.all()[0].pk]), {"to": "3"})


class TestSwitch:
    def test_disabling_shows_what_it_means_and_is_an_action(self, office: Department, ada: User) -> None:
        lead = make_lead(office, status="new")
        rule = office.rules.get(name="Classify what comes in")
        client = browser(ada)
        html = client.get(reverse("runs:rule_change", args=[rule.pk]) + "?do=disable").content.decode()
        assert "1 lead" in html
        assert "this would no longer start: Intake Classifier" in html
        assert lead.name in html
        data = {"to": "off", "seen": stamp(rule), "reason": "Too much spam."}
        response = client.post(reverse("runs:rule_toggle", args=[rule.pk]), data)
        assert response.status_code == 302
        rule.refresh_from_db()
        assert not rule.is_enabled
        action = Action.objects.get()
        assert (action.verb, action.before, action.after, action.reason) == (
            "rule_disable",
            {"is_enabled": True},
            {"is_enabled": False},
            "Too much spam.",
        )

    def test_a_second_time_changes_nothing(self, office: Department, ada: User) -> None:
        rule, client = office.rules.all()[0], browser(ada)
        url = reverse("runs:rule_toggle", args=[rule.pk])
        client.post(url, {"to": "off"})
        html = client.post(url, {"to": "off"}, follow=True).content.decode()
        assert "is disabled already" in html
        assert Action.objects.count() == 1

    def test_htmx_is_sent_back_to_the_list(self, office: Department, ada: User) -> None:
        url = reverse("runs:rule_toggle", args=[office.rules.all()[0].pk])
        response = browser(ada).post(url, {"to": "off"}, headers=HTMX)
        assert response.status_code == 204
        assert response["HX-Redirect"].startswith(reverse("runs:rules"))

    def test_enabling_asks_the_validator_again(self, office: Department, ada: User) -> None:
        # While it was off, the output that it wants lost its writer.
        rule = make_rule(office, when={"status": ["new"], "lacks": ["intake"]}, want=["intake", "research"])
        Rule.objects.filter(pk=rule.pk).update(is_enabled=False)
        url = reverse("runs:rule_toggle", args=[rule.pk])
        html = browser(ada).post(url, {"to": "on"}, follow=True).content.decode()
        assert "no longer" in html
        rule.refresh_from_db()
        assert not rule.is_enabled

    def test_enabling_can_have_the_open_items_looked_at(self, office: Department, ada: User) -> None:
        rule = office.rules.get(name="Follow up")
        Rule.objects.filter(pk=rule.pk).update(is_enabled=False)
        url = reverse("runs:rule_toggle", args=[rule.pk])
        browser(ada).post(url, {"to": "on", "look": "now"})
        office.refresh_from_db()
        assert office.schedule_next_at is not None

    def test_what_somebody_else_changed_meanwhile_is_not_switched(self, office: Department, ada: User) -> None:
        rule = office.rules.all()[0]
        seen = stamp(rule)
        Rule.objects.filter(pk=rule.pk).update(when={"status": ["won"]})
        url = reverse("runs:rule_toggle", args=[rule.pk])
        html = browser(ada).post(url, {"to": "off", "seen": seen}, follow=True).content.decode()
        assert "Somebody has changed it meanwhile" in html
        rule.refresh_from_db()
        assert rule.is_enabled

    def test_get_is_refused_and_other_roles_find_nothing(self, office: Department, ada: User) -> None:
        refused(office, ada, reverse("runs:rule_toggle", args=[office.rules.all()[0].pk]), {"to": "off"})


class TestDelete:
    def test_one_of_ours_is_deleted_and_kept_in_the_action(self, office: Department, ada: User) -> None:
        rule, client = make_rule(office, name="Mine"), browser(ada)
        assert "Delete" in client.get(reverse("runs:rule_change", args=[rule.pk]) + "?do=delete").content.decode()
        client.post(reverse("runs:rule_delete", args=[rule.pk]), {"seen": stamp(rule)})
        assert not Rule.objects.filter(pk=rule.pk).exists()
        action = Action.objects.get()
        assert action.verb == "rule_delete"
        assert action.before["name"] == "Mine"
        assert action.before["when"] == {"status": ["new"]}
        assert client.post(reverse("runs:rule_delete", args=[rule.pk])).status_code == 404
        assert Action.objects.count() == 1

    def test_what_ships_is_not_deleted(self, office: Department, ada: User) -> None:
        rule, client = office.rules.get(name="Follow up"), browser(ada)
        html = client.get(reverse("runs:rule_change", args=[rule.pk]) + "?do=delete").content.decode()
        assert "cannot be deleted" in html
        html = client.post(reverse("runs:rule_delete", args=[rule.pk]), follow=True).content.decode()
        assert "ships with Kontor" in html
        assert Rule.objects.filter(pk=rule.pk).exists()

    def test_get_is_refused_and_other_roles_find_nothing(self, office: Department, ada: User) -> None:
        refused(office, ada, reverse("runs:rule_delete", args=[make_rule(office).pk]), {})


def without_tokens(html: str) -> str:
    """HTML without what differs from one request to the next."""
    return "".join(line.strip() for line in html.splitlines() if "csrfmiddlewaretoken" not in line)


def refused(office: Department, ada: User, url: str, data: dict[str, Any]) -> None:
    """GET is 405, strangers sign in, members of other departments and lower roles find nothing; nothing changes."""
    before = list(Rule.objects.order_by("pk").values_list())
    assert browser(ada).get(url).status_code == 405
    assert Client().post(url, data)["Location"].startswith(reverse("login"))
    for number, role in enumerate((Member.Role.VIEWER, Member.Role.REVIEWER, Member.Role.OPERATOR)):
        user = make_user(f"user{number}", department=office, role=role)
        assert browser(user).post(url, data).status_code == 404
    other = make_user("stan", department=make_department(slug="other-one"), role=Member.Role.ADMINISTRATOR)
    assert browser(other).post(url, data).status_code == 404
    assert list(Rule.objects.filter(department=office).order_by("pk").values_list()) == [
        row for row in before if row[1] == office.pk
    ]
