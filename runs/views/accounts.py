"""A person's own account. Signing in and out are Django's own views, and so is the password but for its answer."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth.models import User
from django.contrib.auth.views import PasswordChangeView
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import NoReverseMatch, reverse, reverse_lazy
from django.views.decorators.http import require_http_methods

from agents.models import Member
from runs.access import access_of, signed_in


class PasswordChange(PasswordChangeView):
    """A new password for whoever is signed in. Their other browsers are signed out by it."""

    template_name = "registration/password.html"
    success_url = reverse_lazy("runs:overview")

    def form_valid(self, form: Any) -> HttpResponse:
        """Say so on the page that follows."""
        messages.success(self.request, "Your password is changed. Other browsers of yours are signed out.")
        return super().form_valid(form)


KEYS_COOKIE = "kontor_keys"
"""Set where letters are no keys (templates/base.html, static/js): who speaks to the computer would press them."""
KEYS_SECONDS = 365 * 24 * 3600


class AccountForm(forms.ModelForm):  # type: ignore[type-arg] # Django's own class takes a type for the checker only
    """What a person says of themselves, and whether letters are keys in their browser."""

    keys = forms.BooleanField(required=False)

    class Meta:
        model = User
        fields = ("first_name", "last_name", "email")


@signed_in
@require_http_methods(["GET", "HEAD", "POST"])
def account(request: HttpRequest) -> HttpResponse:
    """Name and address of whoever is signed in, their roles, and the ways to password and absence."""
    if not isinstance(request.user, User):
        raise Http404("There is no such account.")
    # A copy: what does not fit must not show in the navigation.
    person = User.objects.get(pk=request.user.pk)
    initial = {"keys": KEYS_COOKIE not in request.COOKIES}
    form = AccountForm(request.POST if request.method == "POST" else None, instance=person, initial=initial)
    if request.method == "POST" and form.is_valid():
        if form.has_changed():
            form.save()
            messages.success(request, "Your account is saved.")
        else:
            messages.info(request, "Nothing was changed.")
        return _with_keys(redirect("runs:account"), form.cleaned_data["keys"])
    access = access_of(request)
    roles = [
        (department, Member.Role(access.roles[department.pk]).label)
        for department in access.departments
        if department.pk in access.roles
    ]
    fields = [form[name] for name in AccountForm.Meta.fields]
    context = {"access": access, "form": form, "fields": fields, "roles": roles, "away_url": _url("runs:away")}
    return render(request, "runs/account.html", context, status=422 if form.errors else 200)


def _with_keys(response: HttpResponse, is_on: bool) -> HttpResponse:
    if is_on:
        response.delete_cookie(KEYS_COOKIE)
    else:
        response.set_cookie(KEYS_COOKIE, "off", max_age=KEYS_SECONDS, samesite="Lax", httponly=True)
    return response


def _url(name: str) -> str:
    try:
        return reverse(name)
    except NoReverseMatch:
        return ""
