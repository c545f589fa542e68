"""``manage.py import_leads``."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from agents.models import Department
from leads.models import ImportJob, Lead
from runs.models import Item, Trigger
from tests.factories import make_department, make_lead

pytestmark = pytest.mark.django_db
SAMPLE = Path(__file__).parents[2] / "leads" / "samples" / "leads.csv"


@pytest.fixture
def sales() -> Department:
    return make_department()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "people.csv"
    path.write_text("Email,Name,Shop\nanna@x.example,Anna,1\nanna@x.example,,2\nnobody,Bo,3\nknown@x.example,Cy,\n")
    return path


def _run(*arguments: Any) -> str:
    out = io.StringIO()
    call_command("import_leads", *map(str, arguments), stdout=out)
    return out.getvalue()


def _report(*arguments: Any) -> dict[str, Any]:
    report = json.loads(_run(*arguments, "--json"))
    assert isinstance(report, dict)
    return report


def test_it_imports_and_lists_every_rejected_row(sales: Department, path: Path) -> None:
    make_lead(sales, email="known@x.example")
    text = _run(path)
    assert "1 imported" in text
    assert "1 merged" in text
    assert "1 unchanged" in text
    assert "row 4: 'nobody' is not a valid e-mail address" in text
    lead = Lead.objects.get(email="anna@x.example")
    assert (lead.source, lead.attributes) == ("people.csv", {"Shop": "2"})
    assert lead.item.route_due_at is not None
    assert Trigger.objects.get().source == "import:people.csv"
    assert ImportJob.objects.get().status == "done"
    assert path.exists()


def test_a_dry_run_says_the_same_and_writes_nothing(sales: Department, path: Path) -> None:
    make_lead(sales, email="known@x.example")
    keys = ("imported", "merged", "unchanged", "rejected", "rejects", "columns", "encoding")
    dry = _report(path, "--dry-run")
    assert (Lead.objects.count(), ImportJob.objects.count(), Trigger.objects.count()) == (1, 0, 0)
    real = _report(path)
    assert {key: dry[key] for key in keys} == {key: real[key] for key in keys}
    assert dry["rejects"] == [{"row": 4, "reason": dry["rejects"][0]["reason"]}]


def test_a_dry_run_finds_duplicates_that_lie_far_apart(sales: Department, tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    rows = [f"p{n % 700}@x.example" for n in range(1_400)]
    path.write_text("email\n" + "\n".join(rows))
    report = _report(path, "--dry-run")
    assert (report["imported"], report["merged"] + report["unchanged"]) == (700, 700)


def test_department_source_and_mapping_can_be_chosen(path: Path, tmp_path: Path) -> None:
    make_department()
    other = make_department(slug="other")
    mapping = tmp_path / "mapping.json"
    mapping.write_text('{"Shop": "external_id", "Name": "company"}')
    report = _report(path, "--department", "other", "--source", "shops", "--mapping", mapping)
    assert report["columns"] == {"Email": "email", "Name": "company", "Shop": "external_id"}
    lead = Lead.objects.get(email="anna@x.example")
    assert (lead.department, lead.company, lead.source, lead.external_id) == (other, "Anna", "shops", "1")


def test_rejected_rows_go_to_a_file(sales: Department, path: Path, tmp_path: Path) -> None:
    target = tmp_path / "rejects.csv"
    report = _report(path, "--rejects", target)
    with target.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["row", "reason"]
    assert rows[1:] == [[str(entry["row"]), entry["reason"]] for entry in report["rejects"]]


def test_the_list_on_the_screen_is_bounded(sales: Department, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("email\na@x.example\n" + "bad\n" * 50)
    text = _run(path)
    assert text.count("row ") == 20
    assert "and 30 more" in text
    assert len(_report(path)["rejects"]) == 50


def test_it_fails_where_no_row_is_usable(sales: Department, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("email\nbad\n")
    with pytest.raises(SystemExit) as ended:
        _run(path)
    assert ended.value.code == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.csv"], "There is no file missing.csv"),
        ([str(SAMPLE), "--department", "nobody"], "There are: sales"),
        ([str(SAMPLE), "--mapping", str(SAMPLE)], "is not JSON"),
        ([str(Path(__file__).parent)], "directory"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(sales: Department, arguments: list[str], words: str) -> None:
    with pytest.raises(CommandError, match=words):
        _run(*arguments)
    out = io.StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("import_leads", *arguments, "--json", stdout=out)
    assert ended.value.code == 1
    assert words in json.loads(out.getvalue())["error"]


def test_the_sample_is_imported_and_a_second_time_changes_nothing(sales: Department) -> None:
    first = _report(SAMPLE)
    assert first["imported"] == Lead.objects.count() >= 30
    assert first["rejected"] >= 1
    Item.objects.update(route_due_at=None)
    second = _report(SAMPLE)
    assert (second["imported"], second["merged"]) == (0, 0)
    assert second["unchanged"] == first["imported"] + first["merged"] + first["unchanged"]
    assert second["rejects"] == first["rejects"]
    assert not Item.objects.exclude(route_due_at=None).exists()
