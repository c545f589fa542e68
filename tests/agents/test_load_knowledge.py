"""manage.py load_knowledge: files and folders into a department's knowledge."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from agents.knowledge import search_documents
from agents.models import Department, KnowledgeDocument
from tests.factories import make_department

pytestmark = pytest.mark.django_db


@pytest.fixture
def sales() -> Department:
    return make_department(slug="sales")


def load(*paths: Path, **options: str) -> str:
    """Run the command; what it printed."""
    out = io.StringIO()
    call_command("load_knowledge", *paths, stdout=out, **options)
    return out.getvalue()


def test_a_folder_is_loaded_and_can_be_searched(sales: Department, tmp_path: Path) -> None:
    (tmp_path / "pricing.md").write_text("# Prices and plans\n\nThe small plan costs 490 euros.")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "old_case-study.txt").write_text("A bakery saved flour.")
    (tmp_path / "logo.png").write_bytes(b"\x89PNG")
    assert load(tmp_path).startswith("2 documents")
    titles = set(KnowledgeDocument.objects.filter(department=sales).values_list("title", "source"))
    assert titles == {("Prices and plans", "pricing.md"), ("Old case study", "old_case-study.txt")}
    hits = search_documents(department_id=sales.pk, query="what does the plan cost")
    assert hits[0].reference.startswith("Prices and plans#")


def test_the_same_again_changes_nothing(sales: Department, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A\n\nText.")
    load(tmp_path)
    before = list(KnowledgeDocument.objects.values_list("pk", "updated_at"))
    load(tmp_path)
    assert list(KnowledgeDocument.objects.values_list("pk", "updated_at")) == before


def test_what_cannot_be_read_is_listed_and_the_rest_is_loaded(sales: Department, tmp_path: Path) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\x00\x01\x02")
    (tmp_path / "good.txt").write_text("Good.")
    with pytest.raises(CommandError, match=r"left out:\n.*binary\.txt"):
        load(tmp_path)
    assert list(KnowledgeDocument.objects.values_list("title", flat=True)) == ["Good"]


def test_a_path_that_is_not_there_is_named(sales: Department, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no file or folder .*nowhere"):
        load(tmp_path / "nowhere")


def test_an_unknown_department_is_answered_with_the_known_ones(sales: Department, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no department 'support'. There is: sales"):
        load(tmp_path, department="support")
