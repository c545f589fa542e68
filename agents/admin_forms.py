"""The forms behind the admin pages of prices and documents."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile

from agents.admin_access import ModelForm
from agents.knowledge import MAX_DOCUMENT_CHARS, DocumentError, read_document
from agents.models import KnowledgeDocument, ModelPrice
from agents.pricing import PRICE_FIELDS, PriceBook
from agents.reading import storable

_ENDS = (
    "The model has a price of its own for prompts of more than {0:,} tokens, which would end with this one. "
    "Enter first what those cost from {1} on, even if it is as before."
)


class PriceForm(ModelForm[ModelPrice]):
    """A price to enter."""

    class Meta:
        model = ModelPrice
        fields = (
            "model",
            "effective_from",
            "prompt_tokens_over",
            *PRICE_FIELDS,
            "source",
        )

    def clean(self) -> dict[str, Any]:
        """No price is below zero, input and output cost something, and no band of longer prompts ends unnoticed."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        for name in PRICE_FIELDS:
            usd = cleaned.get(name)
            if usd is not None and usd < 0:
                self.add_error(name, "A price is not below zero.")
            elif usd == 0 and name in ("input_usd", "output_usd"):
                self.add_error(name, "Enter what it costs: at 0 no budget would ever hold this model.")
        about = {name: cleaned.get(name) for name in ("model", "effective_from", "prompt_tokens_over")}
        if self.instance.pk is None and None not in about.values():
            book = PriceBook(ModelPrice.objects.filter(model=about["model"]))
            ended = book.ended_band(ModelPrice(**about))
            if ended is not None:
                self.add_error("prompt_tokens_over", _ENDS.format(ended, about["effective_from"]))
        return cleaned


class DocumentForm(ModelForm[KnowledgeDocument]):
    """A document: typed in, or read from a file, which gives the text and, if need be, the title."""

    upload = forms.FileField(required=False, help_text="Text, Markdown or HTML. It replaces the text below.")

    class Meta:
        model = KnowledgeDocument
        fields = ("department", "title", "source", "text")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["title"].required = self.fields["text"].required = False

    def clean(self) -> dict[str, Any]:
        """A title and a text, wherever they come from, as every database can keep them."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        upload: UploadedFile[bytes] | None = cleaned.get("upload")
        if upload is not None:
            name = upload.name or "file"
            try:
                cleaned["text"] = read_document(name, upload.read())
            except DocumentError as error:
                raise ValidationError({"upload": str(error)}) from error
            cleaned["title"] = cleaned.get("title") or name.rpartition(".")[0]
            cleaned["source"] = cleaned.get("source") or name
        for name in ("title", "text"):
            cleaned[name] = storable(cleaned.get(name) or "").strip()
        if len(cleaned["text"]) > MAX_DOCUMENT_CHARS:
            self.add_error("text", f"At most {MAX_DOCUMENT_CHARS:,} characters. Cut it in pieces.")
        for name in [name for name in ("title", "text") if not cleaned.get(name, "refused already")]:
            self.add_error(name, "This field is required, unless a file is uploaded.")
        return cleaned
