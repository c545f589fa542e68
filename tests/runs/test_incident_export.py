"""One incident as a zip file: everything about it, nothing secret, bounded, and noted who took it."""

from __future__ import annotations

import html
import io
import json
import zipfile
from base64 import b64encode
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db.models import CharField, JSONField, TextField
from django.urls import reverse
from django.utils import timezone

from agents.models import Agent, Department, Member, ModelState
from agents.models.agent import SECTIONS
from agents.souls import create_draft, publish
from runs import incident_export
from runs.incident_export import export_incident, export_run
from runs.models import (
    Action,
    AgentRun,
    Alert,
    AlertDelivery,
    Channel,
    Item,
    LogEntry,
    ModelCall,
    ModelCallBody,
    PipelineRun,
    Review,
    Rule,
    ShiftSlot,
    ToolCall,
)
from runs.secrets import GONE, Redactor, known_secrets
from tests import factories
from tests.runs.scene import HTMX, Scene, make_scene

FILES = [
    *("incident.json", "runs.json", "calls.json", "tools.json", "log.json", "alerts.json", "actions.json"),
    *("settings.json", "versions.json", "README.txt"),
]


def make_incident(scene: Scene, items: int = 2, cause: str = "timeout") -> Review:
    """One question about failed runs of several items, each with a call and a line of the log."""
    review = factories.make_review(scene.lead.item, kind="incident", cause=f"writer:{cause}", ask="Retry them all?")
    for number in range(items):
        item = factories.make_lead(scene.department, name=f"Lead {number}", email=f"{cause}{number}@example.com").item
        run = factories.make_agent_run(item, "writer", status="failed", error="No answer.", cause=cause)
        AgentRun.objects.filter(pk=run.pk).update(incident=review)
        call = factories.make_model_call(run, cause=cause, error="No answer.")
        factories.make_tool_call(call)
        factories.make_log_entry(item, text=f"Line of lead {number}.", agent_run=run)
    return review


def read(pieces: Any) -> dict[str, Any]:
    """The files of an export: JSON read, text as it is."""
    archive = zipfile.ZipFile(io.BytesIO(b"".join(pieces)))
    assert archive.testzip() is None
    texts = {name: archive.read(name).decode() for name in archive.namelist()}
    return {name: json.loads(text) if name.endswith(".json") else text for name, text in texts.items()}


@pytest.mark.django_db
def test_it_holds_runs_calls_log_alerts_settings_and_versions() -> None:
    scene = make_scene()
    review = make_incident(scene)
    now = timezone.now() + timedelta(minutes=1)
    alert = Alert.objects.create(
        department=scene.department, key="failure:writer:timeout", kind="failure", text="x", first_at=now, last_at=now
    )
    AlertDelivery.objects.create(alert=alert, target="slack", status="failed", due_at=now, error="Name not found.")
    files = read(export_incident(review=review, user=scene.operator, sees_system=False))
    assert list(files) == FILES
    assert files["incident.json"][0]["ask"] == "Retry them all?"
    assert [run["item"] for run in files["runs.json"]] == ["Lead 0", "Lead 1"]
    assert {run["agent"] for run in files["runs.json"]} == {"writer"}
    assert "lease_token" not in files["runs.json"][0]
    assert files["calls.json"][0]["request"]["max_tokens"] == 3000
    assert files["calls.json"][0]["response"]["stop_reason"] == "end_turn"
    assert files["calls.json"][0]["input_tokens"] == 900
    assert len(files["tools.json"]) == 2
    assert [line["text"] for line in files["log.json"]] == ["Line of lead 0.", "Line of lead 1."]
    assert files["alerts.json"][0]["deliveries"][0]["error"] == "Name not found."
    assert files["settings.json"][0]["department"]["slug"] == scene.department.slug
    assert files["versions.json"][0]["packages"]["Django"]
    assert "Nothing was cut off." in files["README.txt"]
    assert f"incident {review.pk} of {scene.department}" in files["README.txt"]


PLANTED = {
    "ANTHROPIC_API_KEY": "a-key-of-no-known-form-1",
    "ACME_KEY": "a-key-named-by-the-department-2",
    "ACME_HOOK": "a-webhook-named-by-a-row-3",
    "ACME_SMTP": "a-password-named-by-a-channel-4",
    "ACME_ALERTS": "https://chat.example/T0/B0/named-by-an-agent-11",
    "KONTOR_SLACK_WEBHOOK_URL": "https://chat.example/T0/B0/planted-5",
    "KONTOR_METRICS_TOKEN": "planted-metrics-token-6",
    "DATABASE_URL": "postgres://kontor:planted-db-password-7@db.example:5432/kontor",
    "EMAIL_URL": "smtp://mailer:planted%2Dmail-password-8@mail.example:587",
    "SECRET_KEY": "planted-django-secret-key-9",
    "KONTOR_PING_URL": "https://ping.example/planted-ping-10",
}
FORMED = (
    "sk-ant-api03-" + "A1b2C3d4" * 4,
    "https://hooks.slack.com/services/T000/B000/abcdefghijkl",
    "whsec_" + "Zm9vYmFyYmF6",
    "xoxb-1234567890-abcdef",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
)
HIDDEN = ("planted-db-password-7", "planted-mail-password-8", *FORMED)


@pytest.mark.django_db
@pytest.mark.parametrize("of", ["incident", "run"])
def test_no_secret_is_in_it_wherever_it_stands(of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene()
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    Department.objects.filter(pk=scene.department.pk).update(
        api_key_env="ACME_KEY", webhook_secret_env="ACME_HOOK", settings={"company": " ".join(PLANTED.values())}
    )
    Channel.objects.create(department=scene.department, kind="email", secret_env="ACME_SMTP")
    scene.department.agents.update(escalate_channel="slack:ACME_ALERTS")
    everything = "\n".join([*PLANTED.values(), *HIDDEN])
    review = make_incident(scene, items=1)
    Review.objects.filter(pk=review.pk).update(ask=f"Retry? {PLANTED['ACME_KEY']}", answer_note=everything)
    PipelineRun.objects.update(cause=FORMED[0], missing=everything)
    run = AgentRun.objects.get(incident=review)
    AgentRun.objects.filter(pk=run.pk).update(error=everything, worker=PLANTED["ACME_SMTP"])
    body = {
        "headers": {"Authorization": "Bearer abcdefgh12345678", "x-api-key": "short1", "Cookie": "sessionid=abc123"},
        "messages": [{"content": everything}, {"nested": [{"password": "swordfish"}]}],
        everything: "as a name",
    }
    factories.make_model_call(run, request=body, response={"error": everything})
    factories.make_log_entry(run.item, text=everything, data={"session_key": "s3ss10n", "text": everything})
    Action.objects.create(
        department=scene.department, item=run.item, verb="x", reason=FORMED[0], after={"x": everything}
    )
    now = timezone.now() + timedelta(minutes=1)
    alert = Alert.objects.create(
        department=scene.department, key="k", kind="system", text=everything, first_at=now, last_at=now
    )
    AlertDelivery.objects.create(alert=alert, target="slack", status="failed", due_at=now, error=everything)
    client = scene.client(scene.operator)
    review.refresh_from_db()
    pipeline = PipelineRun.objects.get(pk=run.pipeline_run_id)
    pieces = (
        export_incident(review=review, user=None, sees_system=False)
        if of == "incident"
        else export_run(run=pipeline, user=None, sees_system=False)
    )
    raw = b"".join(pieces)
    archive = zipfile.ZipFile(io.BytesIO(raw))
    text = "\n".join(archive.read(name).decode() for name in archive.namelist())
    secrets = [*PLANTED.values(), *HIDDEN, "swordfish", "s3ss10n", "abcdefgh12345678", "short1", "sessionid=abc123"]
    assert [secret for secret in secrets if secret in text] == []
    assert client.session.session_key
    assert client.session.session_key not in text
    assert Session.objects.get().session_data not in text
    assert scene.operator.password == "" or scene.operator.password not in text
    assert GONE in text
    # What is no secret stays: counts of tokens above all.
    assert json.loads(archive.read("calls.json"))[0]["output_tokens"] == 210


EXPORTED = (
    *(Review, PipelineRun, AgentRun, ModelCall, ModelCallBody, ToolCall, LogEntry, Action, Alert, AlertDelivery),
    *(Department, Agent, Item, Rule, ModelState, ShiftSlot, User),
)
NEEDED = {
    *("Department.kind", "Department.api_key_env", "Department.webhook_secret_env", "ModelState.api_key_env"),
    *("Agent.slug", "Agent.job", "Agent.escalate_channel", "User.password"),
}
"""Without these nothing is exported, or no secret is known."""


def plant(model: Any, secrets: list[str]) -> int:
    """Write secrets into every column of all its rows that holds a text or JSON; how many columns these are.

    A short column gets one, cut where the column ends.
    """
    planted: dict[str, Any] = {}
    for number, column in enumerate(model._meta.concrete_fields):
        if f"{model.__name__}.{column.name}" in NEEDED or column.choices or column.unique:
            continue
        if isinstance(column, JSONField):
            planted[column.name] = {"said": secrets, " ".join(secrets): {"password": {"is": "swordfish"}}}
        elif isinstance(column, TextField):
            planted[column.name] = "\n".join(secrets)
        elif isinstance(column, CharField):
            planted[column.name] = f"Said {secrets[number % len(secrets)]}"[: column.max_length]
    model.objects.update(**planted)
    return len(planted)


@pytest.mark.django_db
@pytest.mark.parametrize("of", ["incident", "run"])
def test_no_text_of_any_exported_row_brings_a_secret(of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene()
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    Department.objects.filter(pk=scene.department.pk).update(api_key_env="ACME_KEY", webhook_secret_env="ACME_HOOK")
    Channel.objects.create(department=scene.department, kind="email", secret_env="ACME_SMTP")
    scene.department.agents.update(escalate_channel="slack:ACME_ALERTS")
    review = make_incident(scene, items=1)
    run = AgentRun.objects.get(incident=review)
    now = timezone.now() + timedelta(minutes=1)
    Action.objects.create(department=scene.department, item=run.item, user=scene.operator, verb="x")
    alert = Alert.objects.create(
        department=scene.department, key="k", kind="system", text="x", first_at=now, last_at=now
    )
    AlertDelivery.objects.create(alert=alert, target="slack", status="failed", due_at=now)
    ModelState.objects.create(model="claude-x", api_key_env="ACME_KEY")
    ShiftSlot.objects.create(number=1, started_at=now, heartbeat_at=now, lease_expires_at=now)
    secrets = [*PLANTED.values(), *HIDDEN]
    agent = scene.department.agents.get(slug="writer")
    soul = create_draft(agent=agent, sections=dict.fromkeys(SECTIONS, "\n".join(secrets)), author=None, note=FORMED[0])
    assert publish(soul=soul, author=None)
    Rule.objects.exclude(pk=Rule.objects.order_by("pk").values("pk")[:1]).delete()  # their names differ
    for model in EXPORTED:
        assert model.objects.exists(), model
        assert plant(model, secrets), model
    review, pipeline = Review.objects.get(pk=review.pk), PipelineRun.objects.get(pk=run.pipeline_run_id)
    pieces = (
        export_incident(review=review, user=None, sees_system=True)
        if of == "incident"
        else export_run(run=pipeline, user=None, sees_system=True)
    )
    archive = zipfile.ZipFile(io.BytesIO(b"".join(pieces)))
    texts = {name: archive.read(name).decode() for name in archive.namelist()}
    for name, text in texts.items():
        # Of what was cut, eight characters are enough to go by.
        found = [secret for secret in (*secrets, "swordfish") if secret in text or said_begins(text, secret)]
        assert found == [], name
    full = [name for name, text in texts.items() if GONE in text]
    assert full == [name for name in texts if name != "versions.json"], "every file had something to hide"


def said_begins(text: str, secret: str) -> bool:
    """Whether a text tells how a secret begins. An address begins as any other."""
    return "://" not in secret and f"Said {secret[:8]}" in text


SPOKEN = 's3cr3t-p@ss/w"rd&\\x'


@pytest.mark.parametrize(
    ("spelled", "without"),
    [
        (quote(SPOKEN, safe=""), GONE),
        (quote(SPOKEN), GONE),
        (quote(SPOKEN, safe="").lower(), GONE),
        ("s3cr3t%2dp%40ss%2Fw%22rd&%5cx", GONE),
        (html.escape(SPOKEN), GONE),
        ("s3cr3t-p@ss&#x2F;w&#34;rd&#038;\\x", GONE),
        (json.dumps(SPOKEN), f'"{GONE}"'),
        (json.dumps(json.dumps({"sent": SPOKEN})), f'"{{\\"sent\\": \\"{GONE}\\"}}"'),
        (repr(SPOKEN), f"'{GONE}'"),
        # At the ends of base64 some letters belong to what stands beside it, too.
        (b64encode(SPOKEN.encode()).decode(), f"{GONE}A=="),
        (b64encode(b"\0me\0" + SPOKEN.encode()).decode(), f"AG1lAH{GONE}g="),
        (b64encode(b"mailer:" + SPOKEN.encode() + b"!").decode(), f"bWFpbGVyOn{GONE}gh"),
        (SPOKEN[:11], GONE),
        (f"{SPOKEN[:8]}…", GONE),
    ],
)
def test_a_known_secret_is_found_however_it_is_spelled(spelled: str, without: str) -> None:
    assert Redactor([SPOKEN]).text(f"It said: {spelled}") == f"It said: {without}"


def test_a_blank_and_an_apostrophe_in_a_secret_are_known_as_forms_and_html_write_them() -> None:
    for spelled in ("it's secret", "it%27s+secret", "it&apos;s secret", "it&#x27;s%20secret"):
        assert Redactor(["it's secret"]).text(f"a={spelled}&b=c") == f"a={GONE}&b=c"


def test_of_two_secrets_the_longer_one_goes_first() -> None:
    redactor = Redactor(["hunter/two", "hunter/two/three"])
    assert redactor.text("hunter/two/three, hunter%2ftwo%2fthree, hunter/two") == f"{GONE}, {GONE}, {GONE}"


@pytest.mark.parametrize("cut", ["abcdefgh", "abcdefgh-abcdefg", "abcdefgh-abcdefgh", "abcdefgh-abcdefgh-x"])
def test_the_beginning_of_a_secret_is_found_though_its_letters_come_twice(cut: str) -> None:
    redactor = Redactor(["abcdefgh-abcdefgh-xyz"])
    assert redactor.text(f"It said: {cut}…") == f"It said: {GONE}"
    assert redactor.text(f"abcdefgh? It said: {cut}") == f"abcdefgh? It said: {GONE}"


def test_what_only_begins_like_a_secret_stays() -> None:
    assert Redactor(["correct-horse-battery"]).text("It is correct-hors") == f"It is {GONE}"
    for text in ("It is correct", "correct-hors is not the end"):
        assert Redactor(["correct-horse-battery"]).text(text) == text


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("500 unrecognized: AUTH PLAIN AG1lAHNlY3JldA==", f"500 unrecognized: AUTH PLAIN {GONE}"),
        ("x-api-key: short1", f"x-api-key: {GONE}"),
        ("{'Authorization': 'Token abc-123', 'Accept': '*'}", f"{{'Authorization': 'Token {GONE}', 'Accept': '*'}}"),
        ("smtp://me:p@ss@mail.example:587", f"smtp://{GONE}@mail.example:587"),
        ("The password: swordfish.", f"The password: {GONE}"),
        ("Passwords are kept by Kontor, not by me: none.", "Passwords are kept by Kontor, not by me: none."),
        ("GET /?sessionid=s3ss10nvalue&x=1", f"GET /?sessionid={GONE}&x=1"),
        ("a=b; sessionid=s3ss10nvalue; csrftoken=c5rf", f"a=b; sessionid={GONE} csrftoken={GONE}"),
        ("Cookie: theme=dark; odd=s3cr3t\nAccept: */*", f"Cookie: {GONE}\nAccept: */*"),
        ("set-cookie: odd=s3cr3t; Path=/", f"set-cookie: {GONE}"),
        ('{"Cookie": "odd=s3cr3t; b=c"}', f'{{"Cookie": "{GONE}"}}'),
        ("https://host/?access_token=abc&x=1", f"https://host/?access_token={GONE}&x=1"),
        ('It sent {"user_password": "swordfish"}.', f'It sent {{"user_password": "{GONE}"}}.'),
        ('{\\"session_key\\": \\"s3ss10n"}', f'{{\\"session_key\\": \\"{GONE}"}}'),
        ('{"password": "two words", "a": "b c"}', f'{{"password": "{GONE}", "a": "b c"}}'),
        ("{'password': 'so \\'they\\' say', 'a': 1}", f"{{'password': '{GONE}', 'a': 1}}"),
        ('{"password": "it\'s mine\\\\", "a": "b"}', f'{{"password": "{GONE}", "a": "b"}}'),
        (
            json.dumps(json.dumps({"api_key": 'two "words" \\', "a": "b"})),
            json.dumps(json.dumps({"api_key": GONE, "a": "b"})),
        ),
        ('token="two words" a="b c"', f'token="{GONE}" a="b c"'),
        ('"Authorization": "Digest a b", "c": 1', f'"Authorization": "Digest {GONE}", "c": 1'),
        ('It sent "password": "two wor', f'It sent "password": "{GONE}'),
        ('It sent "password": "two wor\nand more.', f'It sent "password": "{GONE}\nand more.'),
        ('{"password": "", "a": "b c"}', '{"password": "", "a": "b c"}'),
        ("SMTP AUTH LOGIN extension not supported", "SMTP AUTH LOGIN extension not supported"),
        ("535 auth login failed for sales", "535 auth login failed for sales"),
        ("Here basic authentication is disabled.", "Here basic authentication is disabled."),
        ("AUTH LOGIN bWFpbGVy", f"AUTH LOGIN {GONE}"),
        ("It took basic bWFpbGVyOng=.", f"It took basic {GONE}."),
        ("A cookie: it is sweet. Session 3, max_tokens=900", "A cookie: it is sweet. Session 3, max_tokens=900"),
    ],
)
def test_sessions_and_named_secrets_are_taken_out_of_free_text(text: str, without: str) -> None:
    assert Redactor().text(text) == without


def test_a_text_keeps_what_is_no_secret() -> None:
    redactor = Redactor(["hunter2hunter2", "short"])
    kept = {"input_tokens": 900, "max_tokens": "900", "key": "email", "text": "A short token of thanks", "n": [1, None]}
    assert redactor.value(kept) == kept
    assert redactor.value({"token": "abc", "API_KEY": "x", "user_password": "y"}) == {
        "token": GONE,
        "API_KEY": GONE,
        "user_password": GONE,
    }
    assert redactor.text("postgres://me:pass@host/db?token=abc&x=1") == f"postgres://{GONE}@host/db?token={GONE}&x=1"


@pytest.mark.django_db
def test_known_secrets_come_from_names_rows_and_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    factories.make_department(api_key_env="ODD_NAME")
    found = known_secrets({"ODD_NAME": "odd-value", "REDIS_URL": "redis://:redis-pass@h", "HOME": "/home/kontor"})
    assert {"odd-value", "redis-pass"} <= found
    assert "/home/kontor" not in found


@pytest.mark.django_db
@pytest.mark.parametrize(("sees_system", "expected"), [(True, {"old but open", "all"}), (False, {"old but open"})])
def test_alerts_of_the_whole_installation_are_for_who_may_see_the_system(sees_system: bool, expected: set[str]) -> None:
    scene = make_scene()
    review = make_incident(scene)
    other = Department.objects.get(slug="other")
    before, after = review.created_at - timedelta(hours=1), review.created_at + timedelta(minutes=1)
    for text, department, last_at, closed_at in (
        ("old but open", scene.department, before, None),
        ("over", scene.department, before, before),
        ("all", None, after, None),
        ("of others", other, after, None),
    ):
        state = "closed" if closed_at else "open"
        values = {"state": state, "first_at": before, "last_at": last_at, "closed_at": closed_at}
        Alert.objects.create(department=department, key=text, kind="system", text=text, **values)
    files = read(export_incident(review=review, user=None, sees_system=sees_system))
    assert {alert["text"] for alert in files["alerts.json"]} == expected
    assert ("the department and the installation" in files["README.txt"]) is sees_system


@pytest.mark.django_db
@pytest.mark.parametrize("of", ["incident", "run"])
def test_the_button_brings_the_alerts_of_all_only_to_who_may_see_the_system(of: str) -> None:
    scene = make_scene()
    review = make_incident(scene)
    now = timezone.now() + timedelta(minutes=1)
    Alert.objects.create(key="worker", kind="system", text="No worker.", first_at=now, last_at=now)
    url = reverse("runs:incident_export", args=[review.pk])
    if of == "run":
        url = reverse("runs:run_export", args=[scene.run.pk])
    administrator = factories.make_user("ada", department=scene.department, role=Member.Role.ADMINISTRATOR)
    found = {user: read(scene.client(user).post(url))["alerts.json"] for user in (scene.operator, administrator)}
    assert found[scene.operator] == []
    assert [alert["text"] for alert in found[administrator]] == ["No worker."]


@pytest.mark.django_db
def test_it_is_bounded_and_says_what_was_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene()
    review = make_incident(scene, items=4)
    monkeypatch.setattr(incident_export, "MAX_RUNS", 3)
    monkeypatch.setattr(incident_export, "MAX_CALLS", 2)
    monkeypatch.setattr(incident_export, "MAX_LOG", 2)
    monkeypatch.setattr(incident_export, "CHUNK", 2)
    monkeypatch.setattr(incident_export, "MAX_BODY_CHARS", 40)
    files = read(export_incident(review=review, user=None, sees_system=False))
    assert len(files["runs.json"]) == 3
    assert len(files["calls.json"]) == 2
    assert [line["text"] for line in files["log.json"]] == ["Line of lead 0.", "Line of lead 1."]
    assert files["calls.json"][0]["request"] == "left out: too long"
    cuts = [line for line in files["README.txt"].splitlines() if line.startswith("CUT OFF")]
    assert cuts == [
        "CUT OFF: only the first 3 of the agent runs, and what belongs to them.",
        "CUT OFF: only the first 2 model calls.",
        "CUT OFF: request and response of 2 calls, which are too long.",
        "CUT OFF: only the first 2 tool calls.",
        "CUT OFF: only the first 2 lines of the log.",
    ]


@pytest.mark.django_db
def test_what_fits_exactly_is_not_said_to_be_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene()
    review = make_incident(scene, items=4)
    for name in ("MAX_RUNS", "MAX_CALLS", "MAX_LOG"):
        monkeypatch.setattr(incident_export, name, 4)
    monkeypatch.setattr(incident_export, "CHUNK", 2)
    files = read(export_incident(review=review, user=None, sees_system=False))
    assert len(files["runs.json"]) == len(files["calls.json"]) == len(files["log.json"]) == 4
    assert "Nothing was cut off." in files["README.txt"]


@pytest.mark.django_db
def test_it_is_made_while_it_is_taken() -> None:
    scene = make_scene()
    review = make_incident(scene, items=3)
    pieces = export_incident(review=review, user=None, sees_system=False)
    next(pieces)
    factories.make_log_entry(AgentRun.objects.filter(incident=review)[0].item, text="Written meanwhile.")
    assert LogEntry.objects.filter(text="Written meanwhile.").exists()
    rest = list(pieces)
    assert len(rest) > 8


@pytest.mark.django_db
def test_what_belongs_to_another_incident_is_not_in_it() -> None:
    scene = make_scene()
    review, other = make_incident(scene, items=1), make_incident(scene, items=1, cause="invalid")
    files = read(export_incident(review=review, user=None, sees_system=False))
    assert [run["incident_id"] for run in files["runs.json"]] == [review.pk]
    assert other.pk != review.pk
    assert {call["agent_run_id"] for call in files["calls.json"]} == {files["runs.json"][0]["id"]}


# --- The button -----------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_button_sends_the_file_and_an_action_says_who_took_it() -> None:
    scene = make_scene()
    review = make_incident(scene)
    client = scene.client(scene.operator)
    assert (
        f'action="{reverse("runs:incident_export", args=[review.pk])}"'
        in client.get(reverse("runs:incident", args=[review.pk])).content.decode()
    )
    response = client.post(reverse("runs:incident_export", args=[review.pk]))
    assert response["Content-Type"] == "application/zip"
    assert response["Content-Disposition"] == f'attachment; filename="incident-{review.pk}.zip"'
    assert list(read(response)) == FILES
    action = Action.objects.get(verb="export_incident")
    assert (action.user, action.target, action.department) == (scene.operator, f"review:{review.pk}", scene.department)


@pytest.mark.django_db
def test_who_may_not_operate_does_not_get_it() -> None:
    scene = make_scene()
    review = make_incident(scene)
    url = reverse("runs:incident_export", args=[review.pk])
    assert scene.client(scene.operator).get(url).status_code == 405
    assert scene.client(None).post(url)["Location"].startswith(reverse("login"))
    assert scene.client(None).post(url, headers=HTMX).status_code == 401
    for person in (scene.viewer, scene.reviewer, scene.stranger):
        assert scene.client(person).post(url).status_code == 404
    page = scene.client(scene.viewer).get(reverse("runs:incident", args=[review.pk])).content.decode()
    assert url not in page
    assert not Action.objects.filter(verb="export_incident").exists()
    administrator = factories.make_user("ada", department=scene.department, role=Member.Role.ADMINISTRATOR)
    assert scene.client(administrator).post(url).status_code == 200


@pytest.mark.django_db
def test_a_question_that_is_not_about_failed_runs_has_no_export() -> None:
    scene = make_scene()
    url = reverse("runs:incident_export", args=[scene.review.pk])
    assert scene.client(scene.operator).post(url).status_code == 404
    with pytest.raises(ValueError, match="failed runs"):
        export_incident(review=scene.review, user=None, sees_system=False)


@pytest.mark.django_db
def test_the_command_writes_the_same_file(tmp_path: Path) -> None:
    scene = make_scene()
    review = make_incident(scene)
    path = tmp_path / "one.zip"
    call_command("export_incident", review.pk, to=str(path))
    assert list(read([path.read_bytes()])) == FILES
    assert Action.objects.get(verb="export_incident").user is None
    with pytest.raises(CommandError, match="is there already"):
        call_command("export_incident", review.pk, to=str(path))
    with pytest.raises(CommandError, match="There is no incident 999"):
        call_command("export_incident", 999_999)


# --- A run ----------------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("status", ["active", "completed", "degraded", "cancelled"])
def test_any_run_is_exported_by_the_button_on_its_page(status: str) -> None:
    scene = make_scene()
    ended_at = None if status == "active" else timezone.now()
    PipelineRun.objects.filter(pk=scene.run.pk).update(status=status, ended_at=ended_at)
    client, url = scene.client(scene.operator), reverse("runs:run_export", args=[scene.run.pk])
    assert f'action="{url}"' in client.get(reverse("runs:detail", args=[scene.run.pk])).content.decode()
    response = client.post(url)
    assert response["Content-Disposition"] == f'attachment; filename="run-{scene.run.pk}.zip"'
    files = read(response)
    assert list(files) == ["run.json", *FILES[1:]]
    assert files["run.json"][0]["status"] == status
    steps = AgentRun.objects.filter(pipeline_run=scene.run).order_by("pk")
    assert [each["id"] for each in files["runs.json"]] == list(steps.values_list("pk", flat=True))
    assert {each["agent_run_id"] for each in files["calls.json"]} <= {each["id"] for each in files["runs.json"]}
    assert files["calls.json"]
    assert {line["item_id"] for line in files["log.json"]} == {scene.run.item_id}
    assert f"run {scene.run.pk} of {scene.department}" in files["README.txt"]
    action = Action.objects.get(verb="export_run")
    assert (action.user, action.item, action.target) == (scene.operator, scene.run.item, f"run:{scene.run.pk}")


@pytest.mark.django_db
def test_a_run_that_has_not_begun_is_exported_with_the_log_of_its_item() -> None:
    scene = make_scene()
    item = factories.make_lead(scene.department, name="Not Begun").item
    run = PipelineRun.objects.create(item=item, started_at=timezone.now())
    factories.make_log_entry(item, text="It was queued.")
    files = read(export_run(run=run, user=None, sees_system=False))
    assert files["runs.json"] == files["calls.json"] == []
    assert [line["text"] for line in files["log.json"]] == ["It was queued."]


@pytest.mark.django_db
def test_who_may_not_operate_gets_no_run() -> None:
    scene = make_scene()
    url = reverse("runs:run_export", args=[scene.run.pk])
    assert scene.client(scene.operator).get(url).status_code == 405
    assert scene.client(None).post(url)["Location"].startswith(reverse("login"))
    for person in (scene.viewer, scene.reviewer, scene.stranger):
        assert scene.client(person).post(url).status_code == 404
    assert url not in scene.client(scene.viewer).get(reverse("runs:detail", args=[scene.run.pk])).content.decode()
    assert not Action.objects.filter(verb="export_run").exists()
