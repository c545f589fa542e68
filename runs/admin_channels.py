"""Admin page of a department's ways out: what its plug-in asks for, each in a field of its own."""

from __future__ import annotations

from email.utils import parseaddr
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.validators import URLValidator, validate_email
from django.http import HttpRequest

from agents.admin_access import ModelForm, ScopedAdmin
from runs.models import Channel
from runs.send_channels import CHANNELS
from runs.variables import why_not_name

SETTINGS = ("sender", "reply_to", "dkim_selector", "url")


class ChannelForm(ModelForm[Channel]):
    """A channel; what its kind does not use is left empty."""

    user: User | None = None
    """Who fills it in."""

    kind = forms.ChoiceField(choices=[(name, name) for name in CHANNELS])
    sender = forms.CharField(required=False, help_text="E-mail: for example Mara Lindqvist <mara@company.example>.")
    reply_to = forms.CharField(required=False, help_text="E-mail: where answers go, if not to the sender.")
    dkim_selector = forms.CharField(required=False, help_text="E-mail: under which name the DKIM key is published.")
    url = forms.CharField(required=False, help_text="CRM and webhook: where the signed POST goes.")

    class Meta:
        model = Channel
        fields = (
            *("department", "kind", "is_enabled", "secret_env"),
            *("undo_seconds", "per_minute", "daily_cap", "quiet_from", "quiet_to"),
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in SETTINGS:
            self.initial[name] = self.instance.settings.get(name, "")

    def clean_sender(self) -> str:
        """An address, with a name before it if one likes."""
        return _address(self.cleaned_data["sender"])

    def clean_reply_to(self) -> str:
        """Likewise."""
        return _address(self.cleaned_data["reply_to"])

    def clean_url(self) -> str:
        """An address of the web."""
        url: str = self.cleaned_data["url"].strip()
        if url:
            URLValidator(schemes=["https", "http"])(url)
        return url

    def clean(self) -> dict[str, Any]:
        """Quiet hours begin and end, and a channel that is on can send."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if (cleaned.get("quiet_from") is None) != (cleaned.get("quiet_to") is None):
            self.add_error("quiet_to", "Quiet hours begin and end: fill in both, or neither.")
        if cleaned.get("is_enabled") and cleaned.get("kind") == "email" and not cleaned.get("sender"):
            self.add_error("sender", "Mails need a sender before the channel is switched on.")
        department = cleaned.get("department") or (self.instance.department if self.instance.pk else None)
        if self.user is not None and department is not None and "secret_env" in self.changed_data:
            names = [cleaned.get("secret_env", "")]
            if problem := why_not_name(department=department, user=self.user, names=names):
                self.add_error("secret_env", problem)
        return cleaned

    def save(self, commit: bool = True) -> Channel:
        """The fields of the plug-in go into one column; others that it holds stay."""
        given = {name: self.cleaned_data[name].strip() for name in SETTINGS}
        kept = {name: value for name, value in self.instance.settings.items() if name not in SETTINGS}
        self.instance.settings = kept | {name: value for name, value in given.items() if value}
        channel: Channel = super().save(commit)
        return channel


@admin.register(Channel)
class ChannelAdmin(ScopedAdmin[Channel]):
    """The ways out of a department. Whether one works, the outbox page says."""

    form = ChannelForm
    list_display = ("kind", "department", "is_enabled", "undo_seconds", "per_minute", "daily_cap", "tested_at")
    list_filter = ("department", "is_enabled")
    list_select_related = ("department",)
    fields = (
        *("department", "kind", "is_enabled", *SETTINGS, "secret_env"),
        *("undo_seconds", "per_minute", "daily_cap", "quiet_from", "quiet_to"),
    )

    def get_form(self, request: HttpRequest, obj: Channel | None = None, change: bool = False, **kwargs: Any) -> Any:
        """The form knows who asks."""
        form = super().get_form(request, obj, change, **kwargs)
        form.user = request.user  # type: ignore[attr-defined]
        return form

    def get_readonly_fields(self, request: HttpRequest, obj: Channel | None = None) -> tuple[str, ...]:
        """Messages name the kind of their channel."""
        return () if obj is None else ("department",)

    def save_model(self, request: HttpRequest, obj: Channel, form: forms.ModelForm[Channel], change: bool) -> None:
        """The plug-in's fields share one column."""
        super().save_model(request, obj, form, change)
        if change and any(name in SETTINGS for name in form.changed_data):
            obj.save(update_fields=["settings"])


def _address(text: str) -> str:
    text = text.strip()
    if text:
        try:
            validate_email(parseaddr(text)[1])
        except ValidationError as error:
            raise ValidationError("Write it as name@company.example, or Name <name@company.example>.") from error
    return text
