"""Settings, section by section, and a person's own account."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from agents.models import Budget, Department, Member
from leads.department import SALES
from leads.schemas import SalesSettings
from runs.models import Action, Channel
from runs.settings_editing import sections_of, stamp
from tests.factories import agent_of, make_department, make_user
from tests.runs.scene import HTMX

pytestmark = pytest.mark.django_db
SLUGS = [section.slug for section in sections_of(SALES)]
SECTIONS = {section.slug: section for section in sections_of(SALES)}


@pytest.fixture
def office() -> Department:
    department = make_department(settings=SalesSettings().model_dump(mode="json"), time_zone="Europe/Berlin")
    Channel.objects.create(department=department, kind="email")
    Budget.objects.create(department=department, period=Budget.Period.DAY, limit_usd=12)
    return department


@pytest.fixture
def ada(office: Department) -> User:
    return make_user("ada", department=office, role=Member.Role.ADMINISTRATOR)


def browser(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def without_tokens(html: str) -> str:
    """The content of a page without what differs from one request to the next."""
    return "".join(line for line in html.split("<main")[1].splitlines() if "csrfmiddlewaretoken" not in line)


def url_of(office: Department, section: str) -> str:
    return reverse("runs:department_settings", args=[office.slug, section])


def icp(office: Department, text: str) -> dict[str, str]:
    return {"settings_icp": text, "seen": stamp(office, SECTIONS["icp"])}


def test_every_setting_of_the_kind_is_on_exactly_one_page() -> None:
    keys = [key for section in sections_of(SALES) for key in section.keys]
    assert sorted(keys) == sorted(SalesSettings.model_fields)


@pytest.mark.parametrize("slug", SLUGS)
def test_every_section_opens_for_every_member(office: Department, ada: User, slug: str) -> None:
    vera = make_user("vera", department=office, role=Member.Role.VIEWER)
    for user in (ada, vera):
        html = browser(user).get(url_of(office, slug)).content.decode()
        assert 'aria-current="page"' in html
    assert 'type="submit">' not in html.split("<main")[1].split("Latest changes")[0]


def test_one_department_is_opened_and_of_several_a_list(office: Department, ada: User) -> None:
    client = browser(ada)
    page = client.get(url_of(office, "department")).content.decode()
    assert without_tokens(client.get(reverse("runs:settings")).content.decode()) == without_tokens(page)
    other = make_department(slug="second", name="The second")
    Member.objects.create(department=other, user=ada, role=Member.Role.VIEWER)
    html = client.get(reverse("runs:settings")).content.decode()
    assert url_of(office, "department") in html
    assert url_of(other, "department") in html


def test_a_setting_is_saved_as_an_action_with_before_and_after(office: Department, ada: User) -> None:
    before = office.settings["icp"]
    response = browser(ada).post(url_of(office, "icp"), icp(office, "Bakeries."))
    assert response.status_code == 302
    office.refresh_from_db()
    assert office.settings == {**SalesSettings().model_dump(mode="json"), "icp": "Bakeries."}
    action = Action.objects.get()
    assert (action.verb, action.user, action.before, action.after) == (
        "settings_change",
        ada,
        {"icp": before},
        {"icp": "Bakeries."},
    )
    html = browser(ada).get(url_of(office, "icp")).content.decode()
    assert "Latest changes" in html
    assert "Qualifier" in html, "who reads it"
    assert "Latest changes" not in browser(ada).get(url_of(office, "brand")).content.decode()


def test_the_last_change_is_found_behind_whatever_else_was_done(office: Department, ada: User) -> None:
    browser(ada).post(url_of(office, "icp"), icp(office, "Bakeries."))
    Action.objects.bulk_create(Action(department=office, user=ada, verb="approve") for _ in range(400))
    assert "Latest changes" in browser(ada).get(url_of(office, "icp")).content.decode()


def test_every_time_zone_is_offered(office: Department, ada: User) -> None:
    html = browser(ada).get(url_of(office, "department")).content.decode()
    assert '<datalist id="time-zones">' in html
    assert '<option value="Europe/Berlin"></option>' in html


def test_a_second_time_changes_nothing(office: Department, ada: User) -> None:
    client = browser(ada)
    client.post(url_of(office, "icp"), icp(office, "Bakeries."))
    office.refresh_from_db()
    html = client.post(url_of(office, "icp"), icp(office, "Bakeries."), follow=True).content.decode()
    assert "Nothing was changed." in html
    assert Action.objects.count() == 1


def test_a_department_without_stored_settings_shows_defaults_and_notes_only_what_changes(ada: User) -> None:
    office = make_department(slug="bare")
    Member.objects.create(department=office, user=ada, role=Member.Role.ADMINISTRATOR)
    data = {"settings_company_name": "Acme", "settings_company_pitch": SalesSettings().company_pitch}
    data["settings_company_facts"] = "\n".join(f"{fact.fact} | {fact.source}" for fact in SalesSettings().company_facts)
    assert browser(ada).post(url_of(office, "company"), data).status_code == 302
    assert Action.objects.get().after == {"company_name": "Acme"}


def test_htmx_is_sent_to_the_saved_page(office: Department, ada: User) -> None:
    response = browser(ada).post(url_of(office, "icp"), icp(office, "Bakeries."), headers=HTMX)
    assert (response.status_code, response["HX-Redirect"]) == (204, url_of(office, "icp"))


@pytest.mark.parametrize(
    ("section", "data", "text"),
    [
        ("department", {"name": "", "time_zone": "Europe/Berlin"}, "This field is required."),
        ("department", {"name": "Sales", "time_zone": "Berlin"}, "is not a time zone"),
        ("schedule", {"schedule": "every day"}, "This is no cron expression"),
        ("schedule", {"schedule": "99 * * * *"}, "This is no cron expression"),
        ("company", {"settings_company_name": "", "settings_company_facts": "x"}, "has 1 parts"),
        ("cadence", {"settings_cadence": "four"}, "is not a number"),
        ("cadence", {"settings_cadence": "4\n0"}, "line 2"),
        ("brand", {"settings_max_subject_chars": "3"}, "greater than or equal to 20"),
        ("keys", {"api_key_env": "sk-ant-1", "webhook_secret_env": "X"}, "Name an environment variable"),
    ],
)
def test_what_is_wrong_is_said_and_what_was_typed_stays(
    office: Department, ada: User, section: str, data: dict[str, str], text: str
) -> None:
    before = Department.objects.filter(pk=office.pk).values()[0]
    response = browser(ada).post(url_of(office, section), data)
    html = response.content.decode()
    assert response.status_code == 422
    assert text in html
    assert 'role="alert"' in html
    for value in data.values():
        assert value.splitlines()[0] in html if value else True
    assert Department.objects.filter(pk=office.pk).values()[0] == before
    assert not Action.objects.exists()


def test_what_somebody_else_saved_meanwhile_is_not_overwritten(office: Department, ada: User) -> None:
    data = icp(office, "Mine.")
    Department.objects.filter(pk=office.pk).update(settings={**office.settings, "icp": "Theirs."})
    for _ in range(2):
        response = browser(ada).post(url_of(office, "icp"), data)
        assert response.status_code == 422
        html = response.content.decode()
        assert "Somebody has changed it meanwhile" in html
        assert "Mine." in html
    office.refresh_from_db()
    assert office.settings["icp"] == "Theirs."


def test_another_section_changed_meanwhile_does_not_matter_and_is_kept(office: Department, ada: User) -> None:
    data = icp(office, "Mine.")
    Department.objects.filter(pk=office.pk).update(settings={**office.settings, "tone": "Stern."})
    assert browser(ada).post(url_of(office, "icp"), data).status_code == 302
    office.refresh_from_db()
    assert (office.settings["icp"], office.settings["tone"]) == ("Mine.", "Stern.")


def test_a_new_schedule_says_its_next_times_in_the_departments_zone(office: Department, ada: User) -> None:
    client = browser(ada)
    client.post(url_of(office, "schedule"), {"schedule": "30 7 * * *"})
    office.refresh_from_db()
    assert office.schedule_next_at is not None
    html = client.get(url_of(office, "schedule")).content.decode()
    assert html.count(", 07:30") == 3
    assert "Europe/Berlin" in html
    client.post(url_of(office, "schedule"), {"schedule": ""})
    office.refresh_from_db()
    assert office.schedule_next_at is None
    assert "There is no schedule" in client.get(url_of(office, "schedule")).content.decode()


def test_a_key_is_named_and_never_shown(office: Department, ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-secret")
    monkeypatch.delenv("KONTOR_WEBHOOK_SECRET", raising=False)
    html = browser(ada).get(url_of(office, "keys")).content.decode()
    assert "sk-ant-secret" not in html
    assert html.count("not set for the web process") == 1
    assert html.count(" set for the web process") == 2


def name_key(office: Department, user: User, name: str) -> str:
    """Have a person name the variable of the key; the page that follows."""
    data = {"api_key_env": name, "webhook_secret_env": "KONTOR_WEBHOOK_SECRET"}
    return browser(user).post(url_of(office, "keys"), data, follow=True).content.decode()


def test_the_key_of_another_client_cannot_be_named(office: Department, ada: User) -> None:
    other = make_department(slug="other", api_key_env="OTHER_API_KEY")
    assert "OTHER_API_KEY is not a variable of this department" in name_key(office, ada, "OTHER_API_KEY")
    office.refresh_from_db()
    assert office.api_key_env == "ANTHROPIC_API_KEY"
    membership = Member.objects.create(department=other, user=ada, role=Member.Role.OPERATOR)
    assert "is not a variable of this department" in name_key(office, ada, "OTHER_API_KEY"), (
        "who only works there does not pay there"
    )
    membership.role = Member.Role.ADMINISTRATOR
    membership.save()
    name_key(office, ada, "OTHER_API_KEY")
    office.refresh_from_db()
    assert office.api_key_env == "OTHER_API_KEY"


def test_who_runs_the_installation_may_share_a_key(office: Department) -> None:
    make_department(slug="other", api_key_env="OTHER_API_KEY")
    name_key(office, User.objects.create_superuser("root"), "OTHER_API_KEY")
    office.refresh_from_db()
    assert office.api_key_env == "OTHER_API_KEY"


@pytest.mark.parametrize("name", ["SECRET_KEY", "DATABASE_URL", "KONTOR_METRICS_TOKEN"])
def test_a_secret_of_the_installation_is_never_a_key(office: Department, name: str) -> None:
    html = name_key(office, User.objects.create_superuser("root"), name)
    assert f"{name} is a secret of the installation itself" in html
    office.refresh_from_db()
    assert office.api_key_env == "ANTHROPIC_API_KEY"


def test_alerts_say_who_is_told(office: Department, ada: User) -> None:
    agent = agent_of(office, "writer")
    agent.escalate_channel = "slack:ACME_SLACK_URL"
    agent.save()
    html = browser(ada).get(url_of(office, "alerts")).content.decode()
    assert "is set on the page of the <a" in html, "where it is changed"
    assert "email:ada@example.com" in html
    assert html.count("slack:ACME_SLACK_URL") == 2, "the Writer's and the example"


def test_links_into_the_admin_are_for_those_who_get_in(office: Department, ada: User) -> None:
    inside = reverse("admin:agents_department_change", args=[office.pk])
    assert inside not in browser(ada).get(url_of(office, "members")).content.decode()
    User.objects.filter(pk=ada.pk).update(is_staff=True)
    assert inside in browser(ada).get(url_of(office, "members")).content.decode()


@pytest.mark.parametrize("slug", ["members", "nothing"])
def test_what_has_no_form_takes_no_post(office: Department, ada: User, slug: str) -> None:
    assert browser(ada).post(url_of(office, slug), {}).status_code == 404


def test_only_administrators_save_and_others_find_nothing(office: Department, ada: User) -> None:
    data, url = icp(office, "Mine."), url_of(office, "icp")
    assert Client().post(url, data)["Location"].startswith(reverse("login"))
    for number, role in enumerate((Member.Role.VIEWER, Member.Role.REVIEWER, Member.Role.OPERATOR)):
        user = make_user(f"user{number}", department=office, role=role)
        assert browser(user).post(url, data).status_code == 404
    stranger = make_user("stan", department=make_department(slug="other"), role=Member.Role.ADMINISTRATOR)
    assert browser(stranger).get(url).status_code == 404
    assert browser(stranger).post(url, data).status_code == 404
    assert browser(ada).put(url).status_code == 405
    office.refresh_from_db()
    assert office.settings["icp"] != "Mine."


def test_the_number_of_queries_does_not_depend_on_the_members(office: Department, ada: User) -> None:
    client, url = browser(ada), url_of(office, "members")

    def count() -> int:
        with CaptureQueriesContext(connection) as seen:
            client.get(url)
        return len(seen)

    before = count()
    for number in range(6):
        make_user(f"user{number}", department=office)
    assert count() == before


class TestAccount:
    URL = "/account/"

    def test_a_person_changes_name_and_address(self, ada: User) -> None:
        client = browser(ada)
        html = client.get(self.URL).content.decode()
        assert reverse("password") in html
        data: dict[str, Any] = {"first_name": "Ada", "last_name": "Lovelace", "email": "ada@amsel.example"}
        assert client.post(self.URL, data).status_code == 302
        ada.refresh_from_db()
        assert (ada.get_full_name(), ada.email) == ("Ada Lovelace", "ada@amsel.example")
        assert "Nothing was changed." in client.post(self.URL, data, follow=True).content.decode()

    def test_an_address_that_is_none_is_refused_and_stays_in_the_form(self, ada: User) -> None:
        response = browser(ada).post(self.URL, {"first_name": "Ada", "last_name": "", "email": "nowhere"})
        assert response.status_code == 422
        assert 'value="nowhere"' in response.content.decode()
        ada.refresh_from_db()
        assert ada.email == "ada@example.com"

    def test_nothing_else_of_the_account_can_be_set(self, ada: User) -> None:
        browser(ada).post(self.URL, {"email": "ada@amsel.example", "is_superuser": "on", "username": "root"})
        ada.refresh_from_db()
        assert (ada.is_superuser, ada.username) == (False, "ada")

    def test_strangers_sign_in_first(self) -> None:
        assert Client().get(self.URL)["Location"].startswith(reverse("login"))
