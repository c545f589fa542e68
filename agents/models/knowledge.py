from __future__ import annotations

from django.conf import settings
from django.db import models


class KnowledgeDocument(models.Model):
    """A text that a department gave its agents to look things up in. Written by ``agents.knowledge`` only."""

    department = models.ForeignKey("agents.Department", on_delete=models.CASCADE, related_name="documents")
    title = models.CharField(max_length=200)
    source = models.CharField(max_length=300, blank=True, help_text="Where it comes from: a file name or an address.")
    text = models.TextField(help_text="Plain text or Markdown; blank lines separate paragraphs.")
    uploaded_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("department", "title")
        constraints = [
            models.UniqueConstraint(fields=["department", "title"], name="knowledge_title_unique_in_department"),
        ]

    def __str__(self) -> str:
        return self.title


class KnowledgePassage(models.Model):
    """What is searched and cited: about 120 words of a document.

    The full-text index over ``words`` is made in the migration ``0002_knowledge``: an FTS5 table kept by
    triggers on SQLite, a generated ``tsvector`` column on PostgreSQL. A later migration that alters this
    table must make the triggers again, because Django rebuilds an altered table on SQLite.
    """

    document = models.ForeignKey(KnowledgeDocument, on_delete=models.CASCADE, related_name="passages")
    # Repeated from the document, so that a search never leaves the department before the join.
    department = models.ForeignKey("agents.Department", on_delete=models.CASCADE, related_name="+")
    first_paragraph = models.PositiveIntegerField()
    last_paragraph = models.PositiveIntegerField()
    heading = models.CharField(max_length=200, blank=True)
    text = models.TextField()
    words = models.TextField(help_text="Title, heading and text as agents.passages.search_words folds them.")

    class Meta:
        ordering = ("document", "pk")

    def __str__(self) -> str:
        return f"{self.document.title}#{self.first_paragraph}"
