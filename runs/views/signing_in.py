"""Signing in, and a new password by mail. Django's own views; who guesses has to wait."""

from __future__ import annotations

from threading import Thread
from typing import Any

from django import forms
from django.conf import settings
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth import views as auth
from django.contrib.auth.forms import AuthenticationForm, PasswordResetForm
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.urls import reverse_lazy

from runs.database import now as database_now
from runs.sign_in import Attempt, begin_attempt, describe_wait, forget_attempts, note_failure

MAIL_THREAD = "mail with a new password"


class _Guarded(AuthenticationForm):
    """The password is looked at only if there were not too many wrong ones."""

    error_messages = {
        **AuthenticationForm.error_messages,
        "invalid_login": "This name and password do not belong together.",
    }

    def clean(self) -> dict[str, Any]:
        name = self.cleaned_data.get("username")
        if not name or not self.cleaned_data.get("password") or self.request is None:
            return super().clean()
        attempt = _begin(self.request, name)
        try:
            cleaned = super().clean()
        except ValidationError:
            note_failure(attempt)
            raise
        forget_attempts(name=name, address=attempt.address)
        return cleaned


class SignInForm(_Guarded):
    """Of the site."""


class AdminSignInForm(_Guarded, AdminAuthenticationForm):
    """Of the admin."""

    error_messages = {**AdminAuthenticationForm.error_messages, **_Guarded.error_messages}


class SignIn(auth.LoginView):
    """The door. It says how to get a new password where mails can be sent."""

    authentication_form = SignInForm
    redirect_authenticated_user = True

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(can_reset=settings.EMAIL_IS_CONFIGURED, **kwargs)


class ResetForm(PasswordResetForm):
    """Asks for a mail; whether there is such a person is not said. ``request`` is set by the view."""

    request: HttpRequest

    def clean_email(self) -> str:
        """Refuse whoever asks again and again: each would be a mail to somebody."""
        address = str(self.cleaned_data["email"])
        _begin(self.request, f"reset {address}")
        return address

    def send_mail(self, *args: Any, **kwargs: Any) -> None:
        """Beside the request: how long a mail server takes would tell whether there is such a person."""
        Thread(target=super().send_mail, args=args, kwargs=kwargs, name=MAIL_THREAD).start()


class _ByMail:
    """Not there where no mail can be sent."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not settings.EMAIL_IS_CONFIGURED:
            raise Http404("No mail server is set up here: an administrator gives new passwords.")
        return super().dispatch(request, *args, **kwargs)  # type: ignore[misc, no-any-return]


class Reset(_ByMail, auth.PasswordResetView):
    """Send a link with which whoever reads the mail chooses a new password."""

    form_class = ResetForm
    template_name = "registration/reset.html"
    email_template_name = "registration/reset_mail.txt"
    subject_template_name = "registration/reset_subject.txt"

    @property
    def extra_email_context(self) -> dict[str, str]:  # type: ignore[override]
        """The address of this installation as it is set, never that of the request: a stranger chooses that one."""
        return {"base_url": settings.BASE_URL}

    def get_form(self, form_class: type[forms.Form] | None = None) -> forms.Form:  # type: ignore[override]
        form = super().get_form(form_class)  # type: ignore[arg-type]
        form.request = self.request  # type: ignore[attr-defined]
        return form


class ResetSent(_ByMail, auth.PasswordResetDoneView):
    """The mail is on its way, if there is somebody to get it."""

    template_name = "registration/reset_sent.html"


class ResetConfirm(_ByMail, auth.PasswordResetConfirmView):
    """A new password for whoever has the link. It holds once, and for a while."""

    template_name = "registration/reset_confirm.html"
    success_url = reverse_lazy("password_reset_complete")

    def form_valid(self, form: Any) -> HttpResponse:
        """Who was shut out by somebody's guesses may try at once."""
        forget_attempts(name=form.user.get_username())
        return super().form_valid(form)


class ResetComplete(_ByMail, auth.PasswordResetCompleteView):
    """It is changed: sign in."""

    template_name = "registration/reset_complete.html"


def _begin(request: HttpRequest, name: str) -> Attempt:
    attempt = begin_attempt(name=name, address=request.META.get("REMOTE_ADDR", ""))
    if attempt.wait_until is not None:
        raise ValidationError(describe_wait(attempt.wait_until, database_now()), code="wait")
    return attempt
