"""What a person changes in a lead: fields, owner; and what they are told."""

from __future__ import annotations

import pytest
from django.urls import reverse

from agents.models import Member
from leads import editing
from leads.filters import find_owners
from leads.models import Lead
from runs.models import Action, LogEntry, OutboxMessage, Output
from tests import factories
from tests.runs.scene import HTMX, Scene, make_scene

pytestmark = pytest.mark.django_db


def _values(lead: Lead, **changes: str) -> dict[str, str]:
    return {**{name: getattr(lead, name) for name in editing.FIELDS}, **changes}


def _post(scene: Scene, **changes: str) -> str:
    lead = Lead.objects.get(pk=scene.lead.pk)
    data = {**_values(lead), "seen": editing.state_of_fields(lead), **changes}
    url = reverse("leads:save", args=[lead.pk])
    return scene.client(scene.operator).post(url, data, follow=True).content.decode()


def test_changed_fields_are_stored_tidied_with_an_action_and_a_line_in_the_log() -> None:
    scene = make_scene()
    before = scene.lead.company
    html = _post(scene, company="  Amsel   Werke ", name="Lena Weber-Amsel", reason="She married")
    lead = Lead.objects.select_related("item").get(pk=scene.lead.pk)
    assert (lead.company, lead.name, lead.item.title) == ("Amsel Werke", "Lena Weber-Amsel", "Lena Weber-Amsel")
    action = Action.objects.get(verb="edit_lead")
    assert (action.user, action.reason, action.item_id) == (scene.operator, "She married", lead.pk)
    assert (action.before["company"], action.after["company"]) == (before, "Amsel Werke")
    assert set(action.after) == {"name", "company"}
    assert LogEntry.objects.filter(item=lead.item, kind="edited").exists()
    assert "Changed: name, company." in html


def test_what_was_made_from_the_old_values_is_named_and_nothing_runs() -> None:
    scene = make_scene()
    runs = scene.lead.item.agent_runs.count()
    assert "Made from what it said before: intake." in _post(scene, company="Amsel Werke")
    assert scene.lead.item.agent_runs.count() == runs
    assert Output.objects.filter(item=scene.lead.item, is_current=True, key="intake").exists()
    assert "Made from" not in _post(scene, phone="+49 30 1234")


def test_somebody_elses_change_is_not_overwritten_and_what_was_typed_stays() -> None:
    scene = make_scene()
    seen = editing.state_of_fields(scene.lead)
    Lead.objects.filter(pk=scene.lead.pk).update(title="CEO", company="Amsel AG")
    values = _values(scene.lead, company="Amsel Werke", message="Typed for ten minutes")
    url = reverse("leads:save", args=[scene.lead.pk])
    client = scene.client(scene.operator)
    html = client.post(url, {**values, "seen": seen, "reason": "She called"}).content.decode()
    assert "Somebody has changed this lead since you opened the form: company, title." in html
    assert 'value="Amsel Werke"' in html, "what was typed in a field that both have changed"
    assert "Theirs: <q>Amsel AG</q>." in html
    assert 'value="CEO"' in html, "theirs, where nothing was typed"
    assert "Typed for ten minutes</textarea>" in html
    assert 'value="She called"' in html
    assert Lead.objects.get(pk=scene.lead.pk).company == "Amsel AG"
    assert not Action.objects.filter(verb="edit_lead").exists()
    again = editing.state_of_fields(Lead.objects.get(pk=scene.lead.pk))
    assert f'name="seen" value="{again}"' in html, "the form that comes back is made from what it shows"
    client.post(url, {**values, "title": "CEO", "seen": again})
    lead = Lead.objects.get(pk=scene.lead.pk)
    assert (lead.company, lead.title, lead.message) == ("Amsel Werke", "CEO", "Typed for ten minutes")


def test_a_form_that_comes_back_is_refused_again_if_a_third_person_was_faster() -> None:
    scene = make_scene()
    first = editing.state_of_fields(scene.lead)
    Lead.objects.filter(pk=scene.lead.pk).update(title="CEO")
    values = _values(scene.lead, company="Amsel Werke")
    done = editing.edit_lead(lead=scene.lead, user=scene.operator, values=values, seen=first)
    assert done.theirs == {"title": "CEO"}
    Lead.objects.filter(pk=scene.lead.pk).update(title="Chair")
    values = editing.keep_typed(values, done.theirs, first)
    done = editing.edit_lead(lead=scene.lead, user=scene.operator, values=values, seen=done.seen)
    assert done.theirs == {"title": "Chair"}
    assert Lead.objects.get(pk=scene.lead.pk).title == "Chair"


def test_the_same_again_changes_nothing() -> None:
    scene = make_scene()
    assert "Nothing was changed." in _post(scene)
    assert not Action.objects.filter(verb="edit_lead").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"email": "not an address"}, "This is no e-mail address."),
        ({"name": "x" * 201}, "At most 200 characters; these are 201."),
        ({"name": "", "email": "", "company": ""}, "A lead needs a name, an e-mail address or a company."),
    ],
)
def test_what_does_not_fit_comes_back_with_what_is_wrong(changes: dict[str, str], said: str) -> None:
    scene = make_scene()
    html = _post(scene, **changes)
    assert said in html
    assert "Nothing was changed yet." in html
    assert Lead.objects.get(pk=scene.lead.pk).name == scene.lead.name


def test_an_address_of_another_lead_is_refused_and_one_that_is_written_otherwise_is_normalised() -> None:
    scene = make_scene()
    factories.make_lead(scene.department, name="Other One", email="other@example.com")
    assert "Other One has this e-mail address already" in _post(scene, email="other@example.com")
    _post(scene, email="Lena.NEW@Example.COM")
    assert Lead.objects.get(pk=scene.lead.pk).email == "lena.new@example.com"


def test_an_address_stays_while_a_message_to_it_waits() -> None:
    scene = make_scene()
    row = factories.make_outbox(scene.lead.item, output=scene.output, status=OutboxMessage.Status.PENDING)
    assert "A message to the old address waits in the outbox." in _post(scene, email="new@example.com")
    OutboxMessage.objects.filter(pk=row.pk).update(status=OutboxMessage.Status.WITHDRAWN)
    assert "Changed: email." in _post(scene, email="new@example.com")


def test_what_else_was_typed_is_not_lost_when_an_address_is_refused() -> None:
    scene = make_scene()
    factories.make_lead(scene.department, name="Other One", email="other@example.com")
    html = _post(scene, email="other@example.com", company="Amsel Werke, typed with care", reason="She moved")
    assert 'value="Amsel Werke, typed with care"' in html
    assert 'value="She moved"' in html
    assert "Other One has this e-mail address already" in html


def test_what_waits_for_a_machine_holds_no_address() -> None:
    scene = make_scene()
    factories.make_outbox(scene.lead.item, output=scene.output, channel="crm")
    assert "Changed: email." in _post(scene, email="new@example.com")


def test_the_form_says_who_reads_each_field() -> None:
    scene = make_scene()
    html = scene.client(scene.operator).get(reverse("leads:edit", args=[scene.lead.pk])).content.decode()
    assert "Read by Intake Classifier, Qualifier, Researcher" in html
    assert "No agent reads it." not in html.split("edit-name-help")[0]
    assert f'name="seen" value="{editing.state_of_fields(scene.lead)}"' in html


def test_an_owner_is_given_taken_and_written_down() -> None:
    scene = make_scene()
    client, url = scene.client(scene.operator), reverse("leads:owner", args=[scene.lead.pk])
    for owner, name in (("me", "olga"), (str(scene.viewer.pk), "vera"), ("", None)):
        assert client.post(url, {"owner": owner})["Location"] == f"/leads/{scene.lead.pk}/"
        found = Lead.objects.select_related("owner").get(pk=scene.lead.pk).owner
        assert (found.username if found else None) == name
    actions = Action.objects.filter(verb="assign_owner").order_by("pk")
    assert [(a.before["owner"], a.after["owner"]) for a in actions] == [("", "olga"), ("olga", "vera"), ("vera", "")]
    client.post(url, {"owner": ""})
    assert actions.count() == 3, "the second time changes nothing"


def test_nobody_outside_of_the_department_becomes_owner() -> None:
    scene = make_scene()
    client, url = scene.client(scene.operator), reverse("leads:owner", args=[scene.lead.pk])
    html = client.post(url, {"owner": str(scene.stranger.pk)}, headers=HTMX).content.decode()
    assert "stan is no member of" in html
    assert "There is no such person." in client.post(url, {"owner": "999999"}, headers=HTMX).content.decode()
    assert Lead.objects.get(pk=scene.lead.pk).owner is None


@pytest.mark.parametrize("name", ["save", "owner"])
def test_changing_a_lead_is_a_post_of_an_operator(name: str) -> None:
    scene = make_scene()
    url = reverse(f"leads:{name}", args=[scene.lead.pk])
    assert scene.client(scene.operator).get(url).status_code == 405
    assert scene.client(None).post(url).status_code == 302
    for user in (scene.viewer, scene.reviewer, scene.stranger):
        assert scene.client(user).post(url, {"owner": "me"}).status_code == 404
    answer = scene.client(scene.operator).post(url, {"owner": "me", **_values(scene.lead)}, headers=HTMX)
    assert answer.status_code == 200
    assert answer["HX-Trigger"] == "kontor:changed"


def test_a_viewer_is_told_why_they_may_not_edit() -> None:
    scene = make_scene()
    html = scene.client(scene.viewer).get(reverse("leads:detail", args=[scene.lead.pk])).content.decode()
    assert "This takes the role of an operator." in html
    assert reverse("leads:edit", args=[scene.lead.pk]) not in html


def test_candidates_are_the_members_who_may_still_sign_in() -> None:
    scene = make_scene()
    gone = factories.make_user("gone", department=scene.department, role=Member.Role.VIEWER)
    gone.is_active = False
    gone.save()
    assert [user.username for user in find_owners([scene.department.pk])] == ["olga", "rudi", "vera"]
