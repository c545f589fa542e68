"""Writing a rule: the form and its errors, the sentence, what would change, the try on one item, and saving."""

from __future__ import annotations

import html as entities
import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from agents.models import Department, Member
from runs.models import Action, Item, Rule
from runs.rule_editing import stamp
from tests.factories import make_department, make_lead, make_output, make_rule, make_user
from tests.runs.scene import HTMX
from tests.test_access_walk import stored

pytestmark = pytest.mark.django_db
NEW = {"name": "Write to cold leads", "status": "nurturing", "facet-tier": "Cold", "want": "email", "is_enabled": "on"}


@pytest.fixture
def office() -> Department:
    return make_department(schedule="0 */6 * * *")


@pytest.fixture
def ada(office: Department) -> User:
    return make_user("ada", department=office, role=Member.Role.ADMINISTRATOR)


@pytest.fixture
def client(ada: User) -> Client:
    client = Client()
    client.force_login(ada)
    return client


def make_cold(office: Department, name: str = "Carl Cold") -> Item:
    item = make_lead(office, status="nurturing", name=name).item
    make_output(item, "intake")
    make_output(item, "qualification", facets={"tier": "Cold", "score": 20})
    return item


def text_of(response: Any) -> str:
    """The page as a person reads it."""
    return entities.unescape(response.content.decode())


def confirmed(html: str) -> str:
    """What the button sends that confirms."""
    found = re.search(r'name="confirmed" value="(\w+)"', html)
    assert found is not None
    return found[1]


class TestSave:
    URL = "/rules/new/"

    def test_a_rule_that_changes_nothing_is_saved_at_once_behind_all_others(
        self, office: Department, client: Client, ada: User
    ) -> None:
        response = client.post(self.URL, NEW)
        rule = Rule.objects.get(name="Write to cold leads")
        assert response.status_code == 302
        assert response["Location"].endswith(f"#rule-{rule.pk}")
        assert (rule.department, rule.position, rule.is_enabled) == (office, 10, True)
        assert (rule.when, rule.want) == ({"status": ["nurturing"], "facet": {"tier": ["Cold"]}}, ["email"])
        action = Action.objects.get()
        assert (action.verb, action.user, action.before) == ("rule_add", ada, {})
        assert action.after["when"] == rule.when

    def test_what_would_start_is_asked_about_first(self, office: Department, client: Client) -> None:
        make_cold(office)
        response = client.post(self.URL, NEW)
        html = text_of(response)
        assert response.status_code == 200
        assert "<b>1 lead</b> would start <b>5 steps</b>" in html
        assert "Carl Cold" in html
        assert not Rule.objects.filter(name=NEW["name"]).exists()
        assert client.post(self.URL, {**NEW, "confirmed": confirmed(html), "look": "now"}).status_code == 302
        assert Rule.objects.filter(name=NEW["name"]).exists()
        office.refresh_from_db()
        assert office.schedule_next_at is not None, "all open items are looked at within a minute"

    def test_a_confirmation_holds_for_that_draft_only(self, office: Department, client: Client) -> None:
        make_cold(office)
        token = confirmed(text_of(client.post(self.URL, NEW)))
        again = client.post(self.URL, {**NEW, "want": "research", "confirmed": token})
        assert "Not saved yet" in text_of(again)
        assert not Rule.objects.filter(name=NEW["name"]).exists()

    def test_a_disabled_rule_changes_nothing_and_asks_nothing(self, office: Department, client: Client) -> None:
        make_cold(office)
        client.post(self.URL, {name: value for name, value in NEW.items() if name != "is_enabled"})
        assert not Rule.objects.get(name=NEW["name"]).is_enabled

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"name": ""}, "Give it a name"),
            ({"name": "Follow up"}, "There is another one with the name “Follow up”"),
            ({"name": "x" * 121}, "longer than 120 characters"),
            ({"want": ""}, "Choose at least one output that is wanted."),
            ({"want": "mail"}, "There is no output key “mail”. Known output keys:"),
            ({"status": "nwe"}, "There is no status “nwe”. Known statuses: new"),
            ({"facet-score": "much"}, "“much” is not a whole number"),
            ({"facet-score": "101"}, "can never be 101"),
            ({"trigger": "reply", "want": "crm_update"}, "No agent writes “crm_update” for a reply"),
            ({"lacks": "draft"}, "the rule no longer holds because of its clause “lacks”"),
            ({"mode": "json", "when_json": "{"}, "This is not JSON"),
            ({"mode": "json", "when_json": "[1]"}, "Write an object of clauses."),
            ({"mode": "json", "when_json": '{"tags": ["\\u0000"]}', "want_json": '["email"]'}, "cannot be stored"),
            ({"mode": "json", "when_json": '{"tags": ["\\ud800"]}', "want_json": '["email"]'}, "This is not JSON"),
            ({"mode": "json", "when_json": '{"tags": [NaN]}', "want_json": '["email"]'}, "This is not JSON"),
            ({"mode": "json", "when_json": "{}", "want_json": '{"a": 1}'}, "Write a list of output keys."),
            (
                {"mode": "json", "when_json": '{"mood": ["good"]}', "want_json": '["email"]'},
                "Known clauses: status, has",
            ),
        ],
    )
    def test_what_is_wrong_is_refused_in_words(
        self, office: Department, client: Client, change: dict[str, str], text: str
    ) -> None:
        rules = list(Rule.objects.values_list())
        response = client.post(self.URL, {**NEW, **change})
        html = text_of(response)
        assert response.status_code == 422
        assert text in html
        assert 'role="alert"' in html
        for value in change.values():
            assert value[:100] in html, "nothing typed is lost"
        assert list(Rule.objects.values_list()) == rules

    def test_what_is_wrong_is_said_above_the_form_too_and_at_what_is_wanted(
        self, office: Department, client: Client
    ) -> None:
        html = text_of(client.post(self.URL, {**NEW, "want": ""}))
        told = "Choose at least one output that is wanted."
        assert f'role="alert"><div>Not saved. {told} </div>' in html
        assert f'id="wrong-want">{told}' in html

    def test_errors_stand_beside_their_field(self, office: Department, client: Client) -> None:
        html = text_of(client.post(self.URL, {**NEW, "facet-score": "much"}))
        box = html[html.index('id="box-facet-score"') :]
        assert 'value="much"' in box.split(">")[0]
        assert "is not a whole number" in box.split("</div>")[0]


class TestEdit:
    def test_a_rule_is_changed_and_before_and_after_are_kept(self, office: Department, client: Client) -> None:
        rule = make_rule(office, name="Mine", when={"status": ["won"]}, want=["research"])
        url = reverse("runs:rule_edit", args=[rule.pk])
        html = text_of(client.get(url))
        assert "When the lead is won, the research is wanted." in html
        data = {"name": "Mine too", "status": "lost", "want": "research", "is_enabled": "on", "seen": stamp(rule)}
        assert client.post(url, data).status_code == 302
        rule.refresh_from_db()
        assert (rule.name, rule.when) == ("Mine too", {"status": ["lost"]})
        action = Action.objects.get()
        assert action.verb == "rule_change"
        assert action.before == {"name": "Mine", "when": {"status": ["won"]}}
        assert action.after == {"name": "Mine too", "when": {"status": ["lost"]}}

    def test_what_somebody_else_changed_meanwhile_is_not_overwritten(self, office: Department, client: Client) -> None:
        rule = make_rule(office, name="Mine", when={"status": ["won"]}, want=["research"])
        data = {"name": "Mine", "status": "lost", "want": "research", "is_enabled": "on", "seen": stamp(rule)}
        Rule.objects.filter(pk=rule.pk).update(want=["intake"])
        for _ in range(2):
            response = client.post(reverse("runs:rule_edit", args=[rule.pk]), data)
            assert response.status_code == 422
            assert "Somebody has changed it meanwhile" in text_of(response)
        rule.refresh_from_db()
        assert rule.when == {"status": ["won"]}

    def test_a_rule_that_moved_meanwhile_is_still_the_same(self, office: Department, client: Client) -> None:
        rule = make_rule(office, name="Mine", when={"status": ["won"]}, want=["research"])
        seen = stamp(rule)
        Rule.objects.filter(pk=rule.pk).update(position=1)
        data = {"name": "Mine", "status": "lost", "want": "research", "is_enabled": "on", "seen": seen}
        assert client.post(reverse("runs:rule_edit", args=[rule.pk]), data).status_code == 302

    def test_what_ships_keeps_its_name(self, office: Department, client: Client) -> None:
        rule = office.rules.get(name="Note decisions")
        data = {"name": "Else", "trigger": "decision", "want": "crm_update", "is_enabled": "on"}
        response = client.post(reverse("runs:rule_edit", args=[rule.pk]), data)
        assert response.status_code == 422
        assert "keeps its name" in text_of(response)

    def test_fields_become_json_and_fields_again_and_nothing_is_saved(self, office: Department, client: Client) -> None:
        rule = office.rules.get(name="Write to good leads")
        url = reverse("runs:rule_edit", args=[rule.pk])
        data = {"name": rule.name, "status": "won", "facet-tier": ["Hot"], "want": "email"}
        html = text_of(client.post(url, {**data, "switch": "json"}))
        assert '"tier": [' in html
        assert 'name="mode" value="json"' in html
        back = {"name": rule.name, "mode": "json", "when_json": '{"status": ["won"]}', "want_json": '["email"]'}
        html = text_of(client.post(url, {**back, "switch": "fields"}))
        assert 'name="status" value="won" checked' in html
        odd = {**back, "when_json": '{"tags": ["a, b"]}'}
        html = text_of(client.post(url, {**odd, "switch": "fields"}))
        assert "The fields cannot say this" in html
        assert '"a, b"' in html
        rule.refresh_from_db()
        assert rule.when == {"status": ["qualified"], "facet": {"tier": ["Hot", "Warm"]}}

    def test_a_stored_rule_that_fields_cannot_say_opens_as_json(self, office: Department, client: Client) -> None:
        rule = make_rule(office, when={"mood": ["good"]})
        html = text_of(client.get(reverse("runs:rule_edit", args=[rule.pk])))
        assert 'name="mode" value="json"' in html
        assert '"mood"' in html


class TestPreview:
    URL = "/rules/preview/"

    def test_the_sentence_follows_the_form(self, client: Client) -> None:
        html = text_of(client.post(self.URL, {**NEW, "facet-score": "70-80, 90"}, headers=HTMX))
        assert "When the lead is nurturing and its tier is Cold" in html
        assert "its score is 70 to 80 or 90" in html
        assert "<html" not in html

    def test_what_is_wrong_is_said_instead(self, client: Client) -> None:
        html = text_of(client.post(self.URL, {**NEW, "status": "nwe"}, headers=HTMX))
        assert "There is no status “nwe”" in html

    def test_without_htmx_it_is_the_page(self, client: Client) -> None:
        html = text_of(client.post(self.URL, NEW))
        assert "<html" in html
        assert "When the lead is nurturing" in html
        assert 'value="Write to cold leads"' in html


class TestImpact:
    URL = "/rules/impact/"

    def test_it_says_what_would_start_with_links_and_a_price(self, office: Department, client: Client) -> None:
        items = [make_cold(office, f"Carl Cold {number}") for number in range(3)]
        before = stored()
        html = text_of(client.post(self.URL, NEW, headers=HTMX))
        assert "<b>3 leads</b> would start <b>15 steps</b>" in html
        for item in items:
            assert item.get_absolute_url() in html
        assert "at a price that is not known" in html, "there is no price list in this test"
        assert stored() == before

    def test_the_page_shows_the_same_without_htmx(self, office: Department, client: Client) -> None:
        make_cold(office)
        part, whole = (text_of(client.post(self.URL, NEW, headers=headers)) for headers in (HTMX, {}))
        pattern = r"in\d+ms|in\d\.\ds"
        assert re.sub(pattern, "", "".join(part.split())) in re.sub(pattern, "", "".join(whole.split()))

    def test_an_edited_rule_counts_in_its_place(self, office: Department, client: Client) -> None:
        make_lead(office, status="new")
        rule = office.rules.get(name="Classify what comes in")
        data = {"rule": rule.pk, "name": rule.name, "status": "won", "want": "intake", "is_enabled": "on"}
        assert "no longer start: Intake Classifier" in text_of(client.post(self.URL, data, headers=HTMX))

    def test_a_draft_that_is_wrong_is_not_tried(self, client: Client) -> None:
        html = text_of(client.post(self.URL, {**NEW, "want": "mail"}, headers=HTMX))
        assert "First set right" in html


class TestTry:
    URL = "/rules/try/"

    def test_one_item_is_decided_under_both(self, office: Department, client: Client) -> None:
        item = make_cold(office)
        before = stored()
        html = text_of(client.post(self.URL, {**NEW, "item": item.pk}, headers=HTMX))
        assert "It would go otherwise." in html
        assert re.search(r"Researcher.*?not wanted.*?<b>starts</b>", html, re.DOTALL)
        assert "for draft" in html, "what the Formatter waits for"
        assert re.search(r"Write to good leads.*?status: it has nurturing", html, re.DOTALL)
        assert stored() == before

    def test_items_are_looked_for_by_name(self, office: Department, client: Client) -> None:
        make_cold(office, "Carl Cold")
        make_cold(office, "Ines Icy")
        html = text_of(client.post(self.URL, {**NEW, "q": "ines"}, headers=HTMX))
        assert "Ines Icy" in html
        assert "Carl Cold" not in html
        assert "No lead is found by “nobody”" in text_of(client.post(self.URL, {**NEW, "q": "nobody"}, headers=HTMX))

    def test_items_of_others_are_not_there(self, client: Client) -> None:
        other = make_cold(make_department(slug="other"), "Otto Other")
        assert client.post(self.URL, {**NEW, "item": other.pk}).status_code == 404
        assert "Otto Other" not in text_of(client.post(self.URL, {**NEW, "q": "otto"}, headers=HTMX))


@pytest.mark.parametrize("name", ["rule_new", "rule_preview", "rule_impact", "rule_try"])
def test_only_administrators_write(office: Department, ada: User, name: str) -> None:
    url = reverse(f"runs:{name}")
    assert Client().post(url, NEW)["Location"].startswith(reverse("login"))
    for number, role in enumerate((Member.Role.VIEWER, Member.Role.REVIEWER, Member.Role.OPERATOR)):
        person = Client()
        person.force_login(make_user(f"user{number}", department=office, role=role))
        assert person.post(url, NEW).status_code == 404
        assert person.get(url).status_code == (404 if name == "rule_new" else 405)
    assert not Rule.objects.filter(name=NEW["name"]).exists()


def test_a_rule_of_another_department_is_not_there(client: Client) -> None:
    rule = make_rule(make_department(slug="other"))
    for url in (reverse("runs:rule_edit", args=[rule.pk]), reverse("runs:rule_change", args=[rule.pk])):
        assert client.get(url).status_code == 404
    assert client.post(reverse("runs:rule_edit", args=[rule.pk]), NEW).status_code == 404
    assert client.post(reverse("runs:rule_impact"), {**NEW, "rule": rule.pk}).status_code == 404


def test_of_two_departments_the_one_that_is_named_gets_the_rule(office: Department, ada: User, client: Client) -> None:
    other = make_department(slug="other")
    Member.objects.create(department=other, user=ada, role=Member.Role.ADMINISTRATOR)
    client.post("/rules/new/?department=other", NEW)
    assert Rule.objects.get(name=NEW["name"]).department == other
