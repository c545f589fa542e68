"""Whose variable of the environment it is, and who may name it: for keys, for channels and for alerts."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from agents.models import Agent, Department, Member
from runs.models import Channel
from runs.variables import variables_in, why_not_name
from tests.factories import agent_of, make_department, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def mine() -> Department:
    return make_department(slug="mine", api_key_env="MINE_KEY")


@pytest.fixture
def theirs() -> Department:
    department = make_department(slug="their-house", api_key_env="THEIR_KEY", webhook_secret_env="THEIR_HOOK")
    Channel.objects.create(department=department, kind="slack", secret_env="THEIR_CHANNEL")
    agent = agent_of(department, "writer")
    Agent.objects.filter(pk=agent.pk).update(escalate_channel=" slack: THEIR_SLACK")
    return department


@pytest.fixture
def ada(mine: Department) -> User:
    return make_user("ada", department=mine, role=Member.Role.ADMINISTRATOR)


THEIRS = ["THEIR_KEY", "THEIR_HOOK", "THEIR_CHANNEL", "THEIR_SLACK", "KONTOR_SLACK_WEBHOOK_URL_THEIR_HOUSE"]


@pytest.mark.parametrize("name", THEIRS)
def test_what_another_department_uses_is_not_for_its_neighbour(
    mine: Department, theirs: Department, ada: User, name: str
) -> None:
    assert f"{name} is not a variable of this department." in why_not_name(department=mine, user=ada, names=[name])
    Member.objects.create(department=theirs, user=ada, role=Member.Role.OPERATOR)
    assert why_not_name(department=mine, user=ada, names=[name])
    Member.objects.filter(department=theirs).update(role=Member.Role.ADMINISTRATOR)
    assert why_not_name(department=mine, user=ada, names=[name]) == "", "whose department it is may share it"
    root = make_user("root", is_superuser=True)
    assert why_not_name(department=mine, user=root, names=[name]) == ""


SYSTEMS = ["POSTGRES_PASSWORD", "PGPASSWORD", "OTEL_EXPORTER_OTLP_HEADERS", "AWS_SECRET_ACCESS_KEY", "EMAIL_HOST"]


@pytest.mark.parametrize("name", ["SECRET_KEY", "DATABASE_URL", "KONTOR_SLACK_WEBHOOK_URL", *SYSTEMS])
def test_what_is_the_installations_is_for_no_department(mine: Department, name: str) -> None:
    root = make_user("root", is_superuser=True)
    assert f"{name} is a secret of the installation" in why_not_name(department=mine, user=root, names=["X", name])


def test_what_is_named_after_the_department_or_used_by_it_may_be_named(mine: Department, ada: User) -> None:
    Channel.objects.create(department=mine, kind="slack", secret_env="OLD_CHANNEL")
    Agent.objects.filter(pk=agent_of(mine, "writer").pk).update(escalate_channel="slack:OLD_SLACK")
    names = ["MINE_KEY", "MINE_NEW", "OLD_CHANNEL", "OLD_SLACK", "KONTOR_SLACK_WEBHOOK_URL_MINE", ""]
    assert why_not_name(department=mine, user=ada, names=names) == ""


@pytest.mark.parametrize(
    "name",
    [
        *("NOBODYS", "GITHUB_TOKEN", "MINER_KEY", "MINE", "X_MINE_KEY", "KONTOR_WEBHOOK_SECRETS"),
        *("KONTOR_SLACK_WEBHOOK_URLMINE", "KONTOR_SLACK_WEBHOOK_URLMINE_X"),
    ],
)
def test_what_else_is_in_the_environment_is_for_who_runs_the_installation(
    mine: Department, ada: User, name: str
) -> None:
    refused = why_not_name(department=mine, user=ada, names=["MINE_KEY", name])
    assert refused.startswith(f"{name} is not a variable of this department. Its own begin with MINE_. Whoever")
    root = make_user("root", is_superuser=True)
    assert why_not_name(department=mine, user=root, names=[name]) == ""


def test_of_two_departments_the_longer_name_decides(mine: Department, ada: User) -> None:
    make_department(slug="mine-north")
    assert why_not_name(department=mine, user=ada, names=["MINE_SOUTH_KEY"]) == ""
    for name in ("MINE_NORTH_KEY", "KONTOR_SLACK_WEBHOOK_URL_MINE_NORTH"):
        assert f"{name} is not a variable" in why_not_name(department=mine, user=ada, names=[name])


@pytest.mark.parametrize(
    ("slug", "name"),
    [
        *(("kontor", "KONTOR_WEBHOOK_SECRETS"), ("kontor-webhook", "KONTOR_WEBHOOK_SECRETS")),
        *(("anthropic", "ANTHROPIC_API_KEY"), ("slack", "SLACK_BOT_TOKEN"), ("ping", "PING_KEY")),
    ],
)
def test_a_short_name_as_variables_of_the_installation_begin_gives_none(slug: str, name: str) -> None:
    department = make_department(slug=slug, api_key_env="ODD_KEY")
    ada = make_user("ada", department=department, role=Member.Role.ADMINISTRATOR)
    refused = why_not_name(department=department, user=ada, names=[name])
    assert refused == f"{name} is not a variable of this department. Whoever runs this installation can name it."
    webhook = f"KONTOR_SLACK_WEBHOOK_URL_{slug.upper().replace('-', '_')}"
    assert why_not_name(department=department, user=ada, names=["ODD_KEY", webhook]) == ""
    assert why_not_name(department=department, user=make_user("root", is_superuser=True), names=[name]) == ""


def test_a_department_called_sentry_has_no_say_over_the_reports_of_errors() -> None:
    department = make_department(slug="sentry")
    ada = make_user("ada", department=department, role=Member.Role.ADMINISTRATOR)
    assert "is a secret of the installation" in why_not_name(department=department, user=ada, names=["SENTRY_DSN"])


def test_of_a_target_only_slack_names_a_variable() -> None:
    assert variables_in(" slack: ACME_URL ") == ["ACME_URL"]
    assert variables_in("slack") == variables_in("email:ops@acme.example") == variables_in("log") == []
