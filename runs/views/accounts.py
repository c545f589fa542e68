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


class AccountForm(forms.ModelForm):  # type: ignore[type-arg] # Django's own class takes a type for the checker only
    """What a person says of themselves."""

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
    form = AccountForm(request.POST if request.method == "POST" else None, instance=person)
    if request.method == "POST" and form.is_valid():
        if form.has_changed():
            form.save()
            messages.success(request, "Your account is saved.")
        else:
            messages.info(request, "Nothing was changed.")
        return redirect("runs:account")
    access = access_of(request)
    roles = [
        (department, Member.Role(access.roles[department.pk]).label)
        for department in access.departments
        if department.pk in access.roles
    ]
    context = {"access": access, "form": form, "roles": roles, "away_url": _url("runs:away")}
    return render(request, "runs/account.html", context, status=422 if form.errors else 200)


def _url(name: str) -> str:
    try:
        return reverse(name)
    except NoReverseMatch:
        return ""
