from __future__ import annotations

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.knowledge import (
    DocumentError,
    Hit,
    add_document,
    find_reference,
    index_document,
    read_document,
    search_documents,
)
from agents.models import Department, KnowledgeDocument, KnowledgePassage

pytestmark = pytest.mark.django_db

PUMPS = """# Products

Our Kolibri pump moves 40 litres a minute and was built for small breweries.

The Albatros pump moves 900 litres a minute. It is used by dairies in Köln and Łódź.

# Prices

A Kolibri costs 1,200 euros, an Albatros 9,800 euros. Deliveries take three weeks.
"""


def make_department(slug: str = "sales") -> Department:
    return Department.objects.create(kind="sales", slug=slug, name=slug)


def references(department: Department, query: str) -> list[str]:
    return [hit.reference for hit in search_documents(department_id=department.pk, query=query)]


def search(department: Department, query: str) -> list[Hit]:
    return search_documents(department_id=department.pk, query=query)


class TestSearch:
    def test_it_finds_a_passage_and_says_where_it_stands(self) -> None:
        department = make_department()
        add_document(department=department, title="Pumps", text=PUMPS, source="pumps.md")
        hit = search(department, "What does a Kolibri cost?")[0]
        assert hit.reference == "Pumps#5"
        assert hit.heading == "Prices"
        assert hit.source == "pumps.md"
        assert "1,200 euros" in hit.text

    def test_a_reference_leads_back_to_its_passage(self) -> None:
        department, other = make_department(), make_department("other")
        add_document(department=department, title="Pumps #2", text=PUMPS)
        hit = search(department, "Łódź dairies")[0]
        assert find_reference(department_id=department.pk, reference=hit.reference) == [hit]
        assert find_reference(department_id=other.pk, reference=hit.reference) == []
        for nonsense in (
            "",
            "#",
            "Pumps #2",
            "Pumps #2#",
            "Pumps #2#x",
            "Pumps #2#2-",
            "Pumps #2#3-2-1",
            "Pumps #2#" + "9" * 9,
            "Pumps #2#²",
            "#" + "9" * 50,
        ):
            assert find_reference(department_id=department.pk, reference=nonsense) == []

    @pytest.mark.parametrize("query", ["KOLIBRI", "kolibri's", "brewery", "koln", "KÖLN", "lodz", "dairy delivery"])
    def test_case_accents_and_english_endings_do_not_matter(self, query: str) -> None:
        department = make_department()
        add_document(department=department, title="Facts", text=PUMPS)
        assert references(department, query)

    @pytest.mark.parametrize("query", ["啤酒", "厂的泵", "насосы", "μπύρα", "ビール"])
    def test_other_scripts_are_found(self, query: str) -> None:
        department = make_department()
        add_document(department=department, title="World", text="小啤酒厂的泵。\n\nНасосы. Μπύρα. ビールのポンプ。")
        assert references(department, query) == ["World#1-2"]

    def test_the_passage_with_more_of_the_words_comes_first(self) -> None:
        department = make_department()
        for number in range(10):
            add_document(department=department, title=f"Note {number}", text="pump pump pump pump pump")
        add_document(department=department, title="The one", text="A pump for milk, made of glass.")
        assert references(department, "pump glass milk")[0] == "The one#1"

    def test_words_in_the_title_are_found(self) -> None:
        department = make_department()
        add_document(department=department, title="Warranty terms", text="Five years on all moving parts.")
        assert references(department, "warranty") == ["Warranty terms#1"]

    def test_it_returns_at_most_five_and_at_least_one(self) -> None:
        department = make_department()
        for number in range(8):
            add_document(department=department, title=f"Note {number}", text="A note about a pump.")
        for limit, count in ((100, 5), (2, 2), (0, 1), (-3, 1)):
            assert len(search_documents(department_id=department.pk, query="pump", limit=limit)) == count

    def test_a_department_never_finds_what_another_one_uploaded(self) -> None:
        ours, theirs = make_department(), make_department("other")
        add_document(department=theirs, title="Secret", text="The margin of the Kolibri is 60 %.")
        assert references(ours, "Kolibri margin") == []
        add_document(department=ours, title="Secret", text="Our own Kolibri.")
        hits = search(ours, "Kolibri margin secret")
        assert [hit.text for hit in hits] == ["Our own Kolibri."]

    @pytest.mark.parametrize(
        "query",
        ["", " ", "???", '"', "''", "%", "_", "\\", "(", "*", ":*", "\x00", "- -", "🙂", "\ud800"],
    )
    def test_a_query_without_words_finds_nothing(self, query: str) -> None:
        department = make_department()
        add_document(department=department, title="Pumps", text=PUMPS)
        assert search(department, query) == []

    @pytest.mark.parametrize(
        "query",
        [
            'kolibri" OR "x',
            "kolibri AND",
            "NOT kolibri",
            "kolibri NEAR/2",
            "words:kolibri",
            "kolibri*",
            "^kolibri",
            "-kolibri",
            "{words}: kolibri",
            "kolibri & ! | <-> :*",
            "kolibri'); DROP TABLE agents_knowledgedocument; --",
            "kolibri %s %(x)s ?",
            "kolibri\x00\ud800",
        ],
    )
    def test_operators_are_words_like_others(self, query: str) -> None:
        department = make_department()
        add_document(department=department, title="Pumps", text=PUMPS)
        assert "Pumps#2-3" in references(department, query)

    @settings(
        max_examples=150,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        query=st.one_of(
            st.text(max_size=60),
            st.lists(
                st.sampled_from([*'"*^-+(){}:,.|&!<>\\%_?\x00', "AND", "OR", "NOT", "NEAR", "words", "the", "½", "Ⅷ"]),
                max_size=12,
            ).map(" ".join),
        )
    )
    def test_no_query_breaks_the_search(self, query: str) -> None:
        department = Department.objects.filter(slug="fuzz").first() or make_department("fuzz")
        add_document(department=department, title="Fuzz", text=PUMPS)
        assert search(department, f"{query} kolibri")
        search(department, query)


class TestAddDocument:
    def test_the_same_again_changes_nothing(self) -> None:
        department = make_department()
        first = add_document(department=department, title="Pumps", text=PUMPS)
        passages = list(KnowledgePassage.objects.values_list("pk", flat=True))
        again = add_document(department=department, title="  Pumps ", text=PUMPS)
        assert (again.pk, again.updated_at) == (first.pk, first.updated_at)
        assert list(KnowledgePassage.objects.values_list("pk", flat=True)) == passages

    def test_a_new_text_replaces_the_old_one_in_the_index(self) -> None:
        department = make_department()
        add_document(department=department, title="Pumps", text=PUMPS)
        add_document(department=department, title="Pumps", text="We only make valves now.")
        assert references(department, "Kolibri Albatros dairies") == []
        assert references(department, "valves") == ["Pumps#1"]
        assert KnowledgeDocument.objects.count() == 1

    def test_a_changed_row_is_found_by_its_new_words(self) -> None:
        department = make_department()
        document = add_document(department=department, title="Pumps", text=PUMPS)
        document.text = "Nothing but gaskets."
        document.save(update_fields=["text", "updated_at"])
        assert index_document(document) == 1
        assert references(department, "gaskets") == ["Pumps#1"]
        assert references(department, "kolibri") == []

    def test_what_is_deleted_is_not_found_again(self) -> None:
        department = make_department()
        add_document(department=department, title="Pumps", text=PUMPS).delete()
        assert references(department, "kolibri") == []
        add_document(department=department, title="Valves", text="All about valves")
        assert references(department, "kolibri") == []
        department.delete()
        assert KnowledgePassage.objects.count() == 0

    def test_the_index_of_sqlite_agrees_with_the_table(self) -> None:
        if connection.vendor != "sqlite":
            pytest.skip("PostgreSQL generates the column itself")
        department = make_department()
        add_document(department=department, title="Pumps", text=PUMPS)
        KnowledgePassage.objects.update(words="something else")
        add_document(department=department, title="Valves", text=PUMPS).delete()
        with connection.cursor() as cursor:
            # Raises "database disk image is malformed" if index and content differ.
            cursor.execute(
                "INSERT INTO agents_knowledge_search (agents_knowledge_search, rank) VALUES ('integrity-check', 1)"
            )
        assert len(search(department, "something")) == 2

    @pytest.mark.parametrize(
        ("title", "text", "source", "sentence"),
        [
            ("", "text", "", "needs a title"),
            ("x" * 201, "text", "", "needs a title"),
            ("Pumps", " \n\x00 ", "", "is empty"),
            ("Pumps", "x" * 2_000_001, "", "2,000,000 is the most"),
            ("Pumps", "text", "x" * 301, "at most 300"),
        ],
    )
    def test_it_says_what_cannot_be_taken(self, title: str, text: str, source: str, sentence: str) -> None:
        with pytest.raises(DocumentError, match=sentence):
            add_document(department=make_department(), title=title, text=text, source=source)
        assert KnowledgeDocument.objects.count() == 0


class TestReadDocument:
    @pytest.mark.parametrize(
        "data",
        [
            "Größe: 5 €".encode(),
            "Größe: 5 €".encode("utf-8-sig"),
            "Größe: 5 €".encode("utf-16"),
            "Größe: 5 €".encode("cp1252"),
        ],
    )
    def test_the_usual_encodings_are_read(self, data: bytes) -> None:
        assert read_document("sizes.TXT", data) == "Größe: 5 €"

    def test_html_becomes_text_with_headings(self) -> None:
        html = "<html><nav>Home</nav><main><h1>Terms</h1>" + "<p>We deliver within three weeks.</p>" * 10
        text = read_document("terms.html", html.encode())
        assert text.startswith("# Terms\n\nWe deliver")
        assert "<p>" not in text

    @pytest.mark.parametrize(
        ("name", "data", "sentence"),
        [
            ("terms.pdf", b"%PDF-1.7", "is a PDF file"),
            ("terms", b"text", "without an extension"),
            ("terms.txt", b"PK\x03\x04\x00\x00", "binary data"),
            ("terms.md", b"  \n ", "no readable text"),
            ("terms.html", b"<html><script>1</script></html>", "no readable text"),
            ("terms.txt", b"x" * 8_000_001, "larger than 8 MB"),
        ],
    )
    def test_it_says_what_cannot_be_read(self, name: str, data: bytes, sentence: str) -> None:
        with pytest.raises(DocumentError, match=sentence):
            read_document(name, data)
