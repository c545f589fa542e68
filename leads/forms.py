"""The form of the upload page."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.files.uploadedfile import UploadedFile

MAX_UPLOAD_BYTES = 50 * 1024 * 1024


class UploadForm(forms.Form):
    """A file of leads and where it comes from. Which department it is for, the view checks."""

    file = forms.FileField(
        label="File",
        help_text="CSV or Excel (.xlsx), at most 50 MB. The first row holds the names of the columns.",
        error_messages={"required": "Choose a file.", "empty": "The file is empty."},
        widget=forms.ClearableFileInput(attrs={"class": "form-control", "accept": ".csv,.tsv,.txt,.xlsx"}),
    )
    source = forms.CharField(
        label="Source",
        required=False,
        max_length=80,
        help_text="Where the leads come from, for example hubspot. External ids are told apart by it.",
        widget=forms.TextInput(attrs={"class": "form-control", "placeholder": "the name of the file"}),
    )

    def clean_file(self) -> Any:
        """Refuse what is larger than an import reads in reasonable time."""
        file: UploadedFile[bytes] = self.cleaned_data["file"]
        if file.size is None or file.size > MAX_UPLOAD_BYTES:
            raise forms.ValidationError(
                "The file is larger than 50 MB. Split it, or use manage.py import_leads on the server."
            )
        return file
