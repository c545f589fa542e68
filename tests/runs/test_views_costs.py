from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django.utils.html import strip_tags

from agents.models import Department
from agents.pricing import sync_prices
from leads.models import Lead
from runs.cost_rollups import roll_up
from runs.models import Item, ModelCall, TryOut
from tests.factories import make_agent_run, make_department, make_lead, make_model_call, make_user

pytestmark = pytest.mark.django_db
DAY = datetime(2026, 11, 10, 12, tzinfo=UTC)
CUSTOM = {"period": "custom", "from": "2026-11-10", "to": "2026-11-10"}


def make_costs(department: Department, usd: str = "0.25", at: datetime = DAY) -> ModelCall:
    sync_prices()
    run = make_agent_run(make_lead(department, name=f"Lead of {department.slug}").item, "intake")
    return make_model_call(run, cost_usd=Decimal(usd), input_tokens=1_234_567, started_at=at)


def item_of(call: ModelCall) -> Item:
    """The item of a call that is no check."""
    assert call.item is not None
    return call.item


def signed_in(department: Department, client: Client) -> Client:
    client.force_login(make_user(f"viewer-{department.slug}", department=department, role="viewer"))
    return client


def test_the_page_shows_the_sum_and_its_lines(client: Client) -> None:
    department = make_department()
    make_costs(department)
    roll_up()
    make_costs(department, "0.50")
    page = signed_in(department, client).get(reverse("runs:costs"), CUSTOM).content.decode()
    assert "$0.7500" in page
    assert "2,469,134" in page
    assert "claude-sonnet-5-5" in page


@pytest.mark.parametrize("by", ["agent", "model", "soul", "department", "day", "item", "status", "source"])
def test_it_can_be_broken_down_by_everything(client: Client, by: str) -> None:
    department = make_department()
    make_costs(department)
    response = signed_in(department, client).get(reverse("runs:costs"), {**CUSTOM, "by": by})
    assert response.status_code == 200
    assert [row.line.cost.usd for row in response.context["rows"]] == [Decimal("0.25")]
    assert f"<h2>Costs by {'SOUL' if by == 'soul' else by}</h2>" in response.content.decode()


@pytest.mark.parametrize(("by", "has_tokens"), [("agent", True), ("day", True), ("item", False), ("source", False)])
def test_lines_by_items_have_no_columns_for_tokens_that_they_do_not_know(
    by: str, has_tokens: bool, client: Client
) -> None:
    department = make_department()
    make_costs(department)
    page = signed_in(department, client).get(reverse("runs:costs"), {**CUSTOM, "by": by}).content.decode()
    heads = [strip_tags(part) for part in page.partition("<table")[2].partition("</thead>")[0].split("<th")[2:]]
    assert ('data-label="tokens in"' in page) == ("Tokens in" in str(heads)) == has_tokens
    cells = page.partition("<tbody>")[2].partition("</tr>")[0].count("<td")
    assert cells == len(heads), heads


@pytest.mark.parametrize("by", ["agent", "model", "soul", "department", "day", "item", "status", "source"])
def test_where_nothing_was_called_yet_nothing_is_shown(client: Client, by: str) -> None:
    signed_in(make_department(), client)
    page = client.get(reverse("runs:costs"), {"by": by})
    assert page.context["rows"] == []
    assert "No call ended in these days." in page.content.decode()
    assert len(b"".join(client.get(reverse("runs:costs_csv"), {"by": by})).splitlines()) == 1


def test_a_dimension_nobody_has_is_not_found(client: Client) -> None:
    department = make_department()
    assert signed_in(department, client).get(reverse("runs:costs"), {"by": "colour"}).status_code == 404


@pytest.mark.parametrize(
    "dates",
    [
        {},
        {"from": "tomorrow", "to": ""},
        {"from": "2026-11-30", "to": "2026-11-01"},
        {"from": "0001-01-01", "to": "0001-01-02"},
        {"from": "0001-01-01", "to": "9999-12-31"},
    ],
)
def test_bad_dates_break_nothing(client: Client, dates: dict[str, str]) -> None:
    department = make_department()
    signed_in(department, client)
    for name in ("runs:costs", "runs:cost_calls"):
        response = client.get(reverse(name), {"period": "custom", **dates})
        assert response.status_code == 200
        period = response.context["choice"].period
        assert period.first <= period.last
    assert client.get(reverse("runs:costs_csv"), {"period": "custom", **dates}).status_code == 200


def test_somebody_without_a_department_sees_an_empty_page(client: Client) -> None:
    client.force_login(make_user("nina"))
    for by in ("agent", "item", "status"):
        assert client.get(reverse("runs:costs"), {"by": by}).context["rows"] == []


def test_it_compares_with_as_many_days_before(client: Client) -> None:
    department = make_department()
    make_costs(department, "0.30")
    make_costs(department, "0.20", DAY - timedelta(days=1))
    context = signed_in(department, client).get(reverse("runs:costs"), CUSTOM).context
    assert context["report"].whole.change_percent == 50
    assert [row.line.before_usd for row in context["rows"]] == [Decimal("0.20")]


def test_members_of_other_departments_see_nothing_of_it(client: Client) -> None:
    ours, theirs = make_department(slug="ours"), make_department(slug="theirs")
    make_costs(theirs)
    signed_in(ours, client)
    for name in ("runs:costs", "runs:cost_calls"):
        response = client.get(reverse(name), {**CUSTOM, "by": "item"})
        assert "theirs" not in response.content.decode(), name
        assert not response.context["rows"]
    text = b"".join(client.get(reverse("runs:costs_csv"), CUSTOM)).decode()
    assert len(text.splitlines()) == 1


def test_try_outs_have_a_sum_that_opens_their_calls(client: Client) -> None:
    department = make_department()
    make_costs(department, "0.30")
    signed_in(department, client)
    assert "Try-outs" not in client.get(reverse("runs:costs"), CUSTOM).content.decode()
    settled, open_one = make_costs(department, "0.02"), make_costs(department, "0.07")
    row = TryOut.objects.create(
        department=department,
        agent=settled.agent,
        item=item_of(settled),
        soul_name="the draft",
        sections={},
        model="claude-sonnet-5-5",
        bound_usd=Decimal("0.05"),
        status=TryOut.Status.STOPPED,
        created_at=DAY,
    )
    for number, call in enumerate((settled, open_one), start=1):
        ModelCall.objects.filter(pk=call.pk).update(agent_run=None, try_out=row, number=number)
    ModelCall.objects.filter(pk=open_one.pk).update(status="started")
    response = client.get(reverse("runs:costs"), CUSTOM)
    assert response.context["report"].try_outs == (1, Decimal("0.02"))
    assert response.context["report"].whole.cost.usd == Decimal("0.32"), "included"
    assert "try_outs=1" in response.content.decode()
    listed = client.get(reverse("runs:cost_calls"), {**CUSTOM, "try_outs": "1"})
    assert [call for call, _ in listed.context["rows"]] == [open_one, settled]
    assert "Calls of try-outs" in listed.content.decode()


def test_strangers_are_sent_to_the_login(client: Client) -> None:
    for name in ("runs:costs", "runs:costs_csv", "runs:cost_calls"):
        assert client.get(reverse(name)).status_code == 302
        assert client.post(reverse(name)).status_code in (302, 405)


def test_the_export_is_exact(client: Client) -> None:
    department = make_department()
    make_costs(department, "0.12345678")
    response = signed_in(department, client).get(reverse("runs:costs_csv"), {**CUSTOM, "by": "item"})
    rows = list(csv.DictReader(io.StringIO(b"".join(response).decode())))
    assert [(row["cost_usd"], row["before_usd"], row["items"]) for row in rows] == [
        ("0.12345678", "0.00000000", "1"),
        ("0.12345678", "0.00000000", "1"),
    ]
    assert rows[-1]["label"] == "Total"
    assert response["Content-Disposition"].endswith('"costs-by-item-2026-11-10-2026-11-10.csv"')


@pytest.mark.parametrize("by", ["agent", "day", "item", "source", "model"])
def test_the_export_says_what_the_page_and_the_command_say(client: Client, by: str) -> None:
    department = make_department()
    first = make_costs(department, "0.25", DAY - timedelta(days=2))
    ModelCall.objects.filter(pk=first.pk).update(cache_write_1h_tokens=5_000, input_tokens=10)
    make_costs(department, "0.5")
    make_costs(department, "0.125", DAY - timedelta(days=4))
    days = {"from": "2026-11-08", "to": "2026-11-10"}
    response = signed_in(department, client).get(reverse("runs:costs_csv"), {"period": "custom", **days, "by": by})
    *rows, whole = csv.DictReader(io.StringIO(b"".join(response).decode()))
    out = io.StringIO()
    call_command("costs", "--from", days["from"], "--to", days["to"], "--by", by, stdout=out)
    said = json.loads(out.getvalue())

    def as_in_file(line: dict[str, Any], saved_usd: str | None) -> dict[str, str]:
        amounts = {name: line[name] for name in ("cost_usd", "waste_usd", "estimated_usd", "before_usd")}
        told = {**{name: line[name] for name in ("key", "label", "calls", "items")}, **line["tokens"], **amounts}
        return {
            name: "" if value is None else str(value) for name, value in {**told, "cache_saved_usd": saved_usd}.items()
        }

    assert rows == [as_in_file(line, line.get("prompt_cache", {}).get("saved_usd")) for line in said["by"][by]]
    assert whole == as_in_file(said["total"], said["prompt_cache"]["saved_usd"])
    of_items = by in ("item", "status", "source")
    assert all((row["input_tokens"] == row["estimated_usd"] == "") == of_items for row in rows), "unknown is no 0"
    assert whole["input_tokens"] == "1234577"
    assert whole["cache_saved_usd"].startswith("-0."), "a loss is a number, not a formula"
    if by == "day":
        assert [(row["key"], row["calls"], row["before_usd"]) for row in rows] == [
            ("2026-11-08", "1", ""),
            ("2026-11-09", "0", ""),
            ("2026-11-10", "1", ""),
        ]


def test_a_title_that_is_a_formula_is_quoted_in_the_export(client: Client) -> None:
    department = make_department()
    call = make_costs(department)
    item_of(call).title = "=HYPERLINK(1)"
    item_of(call).save()
    response = signed_in(department, client).get(reverse("runs:costs_csv"), {**CUSTOM, "by": "item"})
    row, _ = csv.DictReader(io.StringIO(b"".join(response).decode()))
    assert row["label"] == "'=HYPERLINK(1)"


def test_so_is_a_value_of_a_dimension(client: Client) -> None:
    department = make_department()
    call = make_costs(department)
    item_of(call).lead.source = "@SUM(1)"
    item_of(call).lead.save()
    response = signed_in(department, client).get(reverse("runs:costs_csv"), {**CUSTOM, "by": "source"})
    row, _ = csv.DictReader(io.StringIO(b"".join(response).decode()))
    assert (row["key"], row["label"]) == ("'@SUM(1)", "'@SUM(1)")


@pytest.mark.parametrize("by", ["agent", "model", "soul", "department", "day", "item", "status", "source"])
def test_a_line_opens_its_calls(client: Client, by: str) -> None:
    department, second = make_department(slug="ours"), make_department(slug="second")
    call = make_costs(department)
    Lead.objects.filter(pk=item_of(call).pk).update(source="fair")
    ModelCall.objects.filter(pk=call.pk).update(soul=call.agent.souls.get())
    elsewhere = make_costs(second, "0.75")
    ModelCall.objects.filter(pk=elsewhere.pk).update(model_asked="claude-opus-5-5", model_used="claude-opus-5-5")
    Item.objects.filter(pk=item_of(elsewhere).pk).update(status="meeting")
    make_costs(department, at=DAY - timedelta(days=2))
    client.force_login(make_user("viewer", is_superuser=True))
    rows = client.get(reverse("runs:costs"), {**CUSTOM, "by": by}).context["rows"]
    if by == "day":
        assert [shown[0].pk for shown in client.get(rows[0].url).context["rows"]] == [elsewhere.pk, call.pk]
        return
    (row,) = [row for row in rows if row.line.cost.usd == Decimal("0.25")]
    assert [shown[0].pk for shown in client.get(row.url).context["rows"]] == [call.pk]


@pytest.mark.parametrize(("by", "value"), [("status", "meeting"), ("source", "A fair & more")])
def test_a_line_by_what_items_are_opens_the_calls_of_those(client: Client, by: str, value: str) -> None:
    department = make_department()
    calls = [make_costs(department), make_costs(department)]
    Item.objects.filter(pk=item_of(calls[0]).pk).update(status="meeting")
    Lead.objects.filter(pk=item_of(calls[0]).pk).update(source="A fair & more")
    Lead.objects.filter(pk=item_of(calls[1]).pk).update(source="")
    signed_in(department, client)
    for _ in range(2):
        rows = {
            row.line.cost.key: row for row in client.get(reverse("runs:costs"), {**CUSTOM, "by": by}).context["rows"]
        }
        found = client.get(rows.pop(value).url)
        assert [shown[0].pk for shown in found.context["rows"]] == [calls[0].pk]
        (other,) = rows.values()
        assert bool(other.url) == (by == "status"), "nobody can say which have none"
        roll_up()


def test_a_model_that_the_server_names_otherwise_breaks_nothing_and_opens_its_calls(client: Client) -> None:
    department = make_department()
    call = make_costs(department)
    dated = "claude-haiku-4-5-20251001"
    ModelCall.objects.filter(pk=call.pk).update(model_used=dated, cache_read_tokens=5_000)
    signed_in(department, client)
    context = client.get(reverse("runs:costs"), {**CUSTOM, "by": "model"}).context
    (row,) = context["rows"]
    assert (row.line.cost.label, context["report"].saving_usd) == (dated, 0)
    assert [shown[0].pk for shown in client.get(row.url).context["rows"]] == [call.pk]
    asked = client.get(reverse("runs:cost_calls"), {**CUSTOM, "model": call.model_asked})
    assert asked.context["rows"] == []


@pytest.mark.parametrize("name", ["agent", "soul", "item"])
@pytest.mark.parametrize("number", ["x'", "²", "9" * 30])
def test_what_is_no_id_filters_nothing_and_is_not_said_to(client: Client, number: str, name: str) -> None:
    department = make_department()
    make_costs(department)
    response = signed_in(department, client).get(reverse("runs:cost_calls"), {**CUSTOM, name: number})
    assert len(response.context["rows"]) == 1
    assert response.context["narrowed"] == []


def test_when_a_call_began_is_relative_and_exact_on_hover(client: Client) -> None:
    department = make_department()
    make_costs(department)
    page = signed_in(department, client).get(reverse("runs:cost_calls"), CUSTOM).content.decode()
    began = page.partition('data-label="started">')[2].partition("</td>")[0]
    assert "data-ago" in began
    assert 'title="2026-11-10 ' in began


def test_a_cache_that_cost_more_than_it_saved_says_so(client: Client) -> None:
    department = make_department()
    call = make_costs(department)
    ModelCall.objects.filter(pk=call.pk).update(input_tokens=100, cache_write_5m_tokens=100_000)
    page = signed_in(department, client).get(reverse("runs:costs"), CUSTOM).content.decode()
    # A quarter more than plain input, which is half a US dollar a million.
    assert 'data-label="cache saved">cost $0.0125 more</td>' in page
    assert "</strong>cost $0.0125 more</dd>" in page
    ModelCall.objects.filter(pk=call.pk).update(started_at=timezone.now())
    agent = client.get(reverse("runs:agent", args=[call.agent_id])).content.decode()
    assert "read from it, cost $0.0125 more in" in agent
    ModelCall.objects.filter(pk=call.pk).update(started_at=DAY)
    ModelCall.objects.filter(pk=call.pk).update(cache_read_tokens=100_000)
    page = client.get(reverse("runs:costs"), CUSTOM).content.decode()
    assert 'data-label="cache saved">$0.0325</td>' in page
    assert "</strong>$0.0325 saved</dd>" in page


def test_the_calls_show_whole_prompts_and_what_is_a_bound(client: Client) -> None:
    department = make_department()
    call = make_costs(department)
    url = reverse("leads:detail", args=[item_of(call).pk]) + "?tab=cost"
    signed_in(department, client)

    def shown(path: str, label: str, **fields: object) -> str:
        ModelCall.objects.filter(pk=call.pk).update(**fields)
        page = client.get(path, CUSTOM if path != url else {}).content.decode()
        cell = page.rpartition(f'data-label="{label}">')[2].partition("</td>")[0]
        return " ".join(strip_tags(cell).split())

    calls = reverse("runs:cost_calls")
    tokens = {"input_tokens": 300, "cache_write_5m_tokens": 1_000, "cache_write_1h_tokens": 20, "cache_read_tokens": 4}
    assert shown(calls, "tokens in", **tokens) == "1,324, 4 cached"
    assert shown(url, "tokens") == "1,324, 210"
    for path in (calls, url):
        assert shown(path, "cost", status="finished", is_estimate=False) == "$0.2500"
        assert shown(path, "cost", is_estimate=True) == "$0.2500 estimate"
        assert shown(path, "cost", status="unseen") == "$0.2500 estimate"
        assert shown(path, "cost", status="started", is_estimate=False, reserved_usd="0.4") == "at most $0.4000"


def test_what_other_models_had_cost(client: Client) -> None:
    department = make_department()
    call = make_costs(department)
    signed_in(department, client)
    response = client.get(reverse("runs:costs"), {**CUSTOM, f"if_{call.agent_id}": "claude-opus-5-5"})
    context = response.context
    usd = (Decimal(1_234_567) * 4 + 210 * 20) / 1_000_000
    assert context["what_if"]["chosen_usd"] == usd
    assert {model: cost for model, cost, *_ in context["what_if"]["single"]}["claude-opus-5-5"] == usd
    assert {model: batched for model, _, _, batched, _ in context["what_if"]["single"]}["claude-opus-5-5"] == usd / 2
    assert context["what_if"]["batched_usd"] == call.cost_usd / 2
    page = response.content.decode()
    assert "only to compare, as Kontor sends none (Models overview" in page
    assert "the least it would have cost: the cache is hit less in a batch" in page
    assert page.count("<option selected>claude-opus-5-5</option>") == 1
    assert "<option>claude-sonnet-5-5</option>" in page


@pytest.mark.parametrize("by", ["agent", "model", "day", "item", "status", "source"])
def test_every_line_opens_its_own_calls_whatever_else_was_asked(by: str, client: Client) -> None:
    department = make_department()
    call = make_costs(department)
    asked = {**CUSTOM, "by": by, "if_1": "a & b", by: "x", "before": "7"}
    response = signed_in(department, client).get(reverse("runs:costs"), asked)
    (row,) = response.context["rows"]
    params = parse_qs(row.url.partition("?")[2])
    assert params["if_1"] == ["a & b"]
    assert not params.keys() & {"before", "by"}
    assert all(len(values) == 1 for values in params.values())
    assert [shown.pk for shown, _ in client.get(row.url).context["rows"]] == [call.pk]


def test_the_number_of_queries_does_not_grow(client: Client, django_assert_max_num_queries: object) -> None:
    department = make_department()
    signed_in(department, client)
    for number in range(12):
        make_costs(department, at=timezone.now() - timedelta(days=number))
    client.get(reverse("runs:costs"))
    for by, most in {"item": 22, "agent": 20, "status": 21, "day": 18}.items():
        with django_assert_max_num_queries(most):  # type: ignore[operator]
            client.get(reverse("runs:costs"), {"by": by})


def test_each_line_says_how_much_came_from_the_cache(client: Client) -> None:
    department = make_department()
    call = make_costs(department)
    ModelCall.objects.filter(pk=call.pk).update(input_tokens=300, cache_read_tokens=100)
    response = signed_in(department, client).get(reverse("runs:costs"), CUSTOM)
    assert [row.line.cost.cached_percent for row in response.context["rows"]] == [25]
    assert "25 %" in response.content.decode()


def test_what_brought_nothing_opens_its_calls(client: Client) -> None:
    department = make_department()
    make_costs(department)
    address = f"{reverse('runs:cost_calls')}?period=custom&amp;from=2026-11-10&amp;to=2026-11-10&amp;waste=1"
    signed_in(department, client)
    assert address not in client.get(reverse("runs:costs"), CUSTOM).content.decode(), "there are none"
    bad = make_costs(department, "0.5")
    ModelCall.objects.filter(pk=bad.pk).update(error="of no use")
    assert address in client.get(reverse("runs:costs"), CUSTOM).content.decode()
    response = client.get(address.replace("&amp;", "&"))
    assert [call.pk for call, _ in response.context["rows"]] == [bad.pk]
    assert "<h1>Calls that brought nothing</h1>" in response.content.decode()


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("agent", "agent Intake Classifier"),
        ("soul", "SOUL 1 of Intake Classifier"),
        ("model", "model claude-haiku-5-5"),
        ("item", "item Lead of sales"),
        ("status", "status New"),
        ("source", "source A fair"),
    ],
)
def test_calls_say_what_they_have_in_common_and_lead_back_to_where_they_were_opened(
    by: str, said: str, client: Client
) -> None:
    department = make_department(slug="sales")
    call = make_costs(department)
    ModelCall.objects.filter(pk=call.pk).update(soul=call.agent.souls.get())
    Lead.objects.filter(pk=item_of(call).pk).update(source="A fair")
    (row,) = signed_in(department, client).get(reverse("runs:costs"), {**CUSTOM, "by": by}).context["rows"]
    response = client.get(row.url)
    assert f"{said}, 10 Nov 2026 to" in strip_tags(response.content.decode())
    again = client.get(response.context["back"])
    assert (again.context["choice"].by, again.context["choice"].period) == (by, response.context["choice"].period)
    assert [shown.url for shown in again.context["rows"]] == [row.url]
