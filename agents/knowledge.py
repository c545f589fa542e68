"""The department's own documents: reading, indexing and searching them. No row crosses departments."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath

from django.contrib.auth.models import User
from django.db import connection, transaction

from agents.models import Department
from agents.models.knowledge import KnowledgeDocument, KnowledgePassage
from agents.passages import query_words, search_words, split_passages
from agents.reading import decode_text, page_text, storable

MAX_DOCUMENT_CHARS = 2_000_000
MAX_UPLOAD_BYTES = 4 * MAX_DOCUMENT_CHARS
MAX_HITS = 5
_HTML = (".html", ".htm")
_PLAIN = (".txt", ".text", ".md", ".markdown")
_REFERENCE = re.compile(r"(.+)#([0-9]{1,9})(?:-([0-9]{1,9}))?")


class DocumentError(ValueError):
    """A document that cannot be taken in. The text says why and what to do, for the person who uploads it."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One passage found. ``reference`` is what an agent cites: ``Title#3``, or ``Title#3-5``."""

    reference: str
    heading: str
    source: str
    text: str
    document_id: int
    passage_id: int


def read_document(filename: str, data: bytes) -> str:
    """The text of an uploaded file (.txt, .md, .html, any usual encoding), or a DocumentError."""
    suffix = PurePath(filename).suffix.lower()
    if suffix not in _HTML + _PLAIN:
        what = f"a {suffix[1:].upper()} file" if suffix else "a file without an extension"
        raise DocumentError(
            f"{filename!r} is {what}. Text (.txt), Markdown (.md) and HTML (.html) can be read: "
            "save or export it as one of these."
        )
    if len(data) > MAX_UPLOAD_BYTES:
        raise DocumentError(f"{filename!r} is larger than {MAX_UPLOAD_BYTES // 1_000_000} MB. Split it.")
    if b"\x00" in data and not data.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")):
        raise DocumentError(f"{filename!r} is not a text file, whatever its name says: it holds binary data.")
    text = decode_text(data)
    if suffix in _HTML:
        text = page_text(text).text
    if not text.strip():
        raise DocumentError(f"There is no readable text in {filename!r}.")
    return text


def add_document(
    *, department: Department, title: str, text: str, source: str = "", author: User | None = None
) -> KnowledgeDocument:
    """Store a document under its title and make it searchable; the same again changes nothing.

    Another text under a title that is there replaces the old one. DocumentError if a field cannot be taken.
    """
    title, text, source = " ".join(storable(title).split()), storable(text), storable(source).strip()
    _check(title, text, source)
    with transaction.atomic():
        document, is_new = KnowledgeDocument.objects.select_for_update().get_or_create(
            department=department,
            title=title,
            defaults={"text": text, "source": source, "uploaded_by": author},
        )
        if not is_new:
            if (document.text, document.source) == (text, source):
                return document
            document.text, document.source, document.uploaded_by = text, source, author
            document.save(update_fields=["text", "source", "uploaded_by", "updated_at"])
        index_document(document)
    return document


def index_document(document: KnowledgeDocument) -> int:
    """Cut the document into passages again and return their number. Call it after changing title or text."""
    title = search_words(document.title)
    rows = [
        KnowledgePassage(
            document=document,
            department_id=document.department_id,
            first_paragraph=passage.first,
            last_paragraph=passage.last,
            heading=passage.heading,
            text=passage.text,
            words=" ".join([*title, *search_words(passage.heading), *search_words(passage.text)]),
        )
        for passage in split_passages(document.text)
    ]
    with transaction.atomic():
        document.passages.all().delete()
        KnowledgePassage.objects.bulk_create(rows, batch_size=100)
    return len(rows)


def search_documents(*, department_id: int, query: str, limit: int = MAX_HITS) -> list[Hit]:
    """The passages of the department's documents that fit the query best, best first, at most ``MAX_HITS``.

    Any text is a query: words are looked for in any form and order, a passage with more of them comes first.
    """
    words = query_words(query)
    if not words:
        return []
    limit = max(1, min(limit, MAX_HITS))
    search = _search_postgresql if connection.vendor == "postgresql" else _search_sqlite
    ids = search(department_id, words, limit)
    found = KnowledgePassage.objects.select_related("document").in_bulk(ids)
    return [_hit(found[pk]) for pk in ids if pk in found]


def find_reference(*, department_id: int, reference: str) -> list[Hit]:
    """The passages behind a reference an agent cited; empty if this department has no such place."""
    place = _REFERENCE.fullmatch(reference)
    if place is None:
        return []
    title, first, last = place.groups()
    passages = KnowledgePassage.objects.select_related("document").filter(
        department_id=department_id,
        document__title=title,
        first_paragraph__lte=int(last or first),
        last_paragraph__gte=int(first),
    )
    return [_hit(passage) for passage in passages.order_by("pk")[:MAX_HITS]]


def has_documents(department_id: int) -> bool:
    """Whether the department has given its agents anything to search."""
    return KnowledgePassage.objects.filter(department_id=department_id).exists()


def _check(title: str, text: str, source: str) -> None:
    if not title or len(title) > 200:
        raise DocumentError("A document needs a title of at most 200 characters.")
    if not text.strip():
        raise DocumentError(f"The document {title!r} is empty.")
    if len(text) > MAX_DOCUMENT_CHARS:
        raise DocumentError(f"The document {title!r} has {len(text):,} characters; {MAX_DOCUMENT_CHARS:,} is the most.")
    if len(source) > 300:
        raise DocumentError("The source of a document has at most 300 characters.")


def _search_sqlite(department_id: int, words: list[str], limit: int) -> list[int]:
    # Quoted, so that AND, OR, NOT and NEAR are words like others; search_words left no quotes inside.
    match = " OR ".join(f'"{word}"' for word in words)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT p.id FROM agents_knowledge_search s JOIN agents_knowledgepassage p ON p.id = s.rowid"
            " WHERE agents_knowledge_search MATCH %s AND p.department_id = %s"
            " ORDER BY bm25(agents_knowledge_search), p.id LIMIT %s",
            [match, department_id, limit],
        )
        return [pk for (pk,) in cursor.fetchall()]


def _search_postgresql(department_id: int, words: list[str], limit: int) -> list[int]:
    # Each word exactly (simple) or by its English stem. ts_rank knows nothing of rare words, so a passage
    # that has more of the words comes first.
    word = "(plainto_tsquery('simple', %s) || plainto_tsquery('english', %s))"
    anything = " || ".join([word] * len(words))
    coverage = " + ".join([f"(p.search @@ {word})::int"] * len(words))
    twice = [w for each in words for w in (each, each)]
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT p.id FROM agents_knowledgepassage p, (SELECT {anything} AS query) q"
            " WHERE p.department_id = %s AND p.search @@ q.query"
            f" ORDER BY {coverage} DESC, ts_rank(p.search, q.query) DESC, p.id LIMIT %s",
            [*twice, department_id, *twice, limit],
        )
        return [pk for (pk,) in cursor.fetchall()]


def _hit(passage: KnowledgePassage) -> Hit:
    first, last = passage.first_paragraph, passage.last_paragraph
    numbers = str(first) if first == last else f"{first}-{last}"
    document = passage.document
    return Hit(
        reference=f"{document.title}#{numbers}",
        heading=passage.heading,
        source=document.source,
        text=passage.text,
        document_id=document.pk,
        passage_id=passage.pk,
    )
