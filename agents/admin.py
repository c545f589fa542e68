"""Admin pages: SOULs, prices, documents, the state of the models. ``runs.admin`` has the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from agents.admin_access import ScopedAdmin, SuperuserAdmin, administered
from agents.admin_forms import DocumentForm, PriceForm
from agents.knowledge import index_document
from agents.models import Agent, Department, KnowledgeDocument, ModelPrice, ModelState, Soul
from agents.models.agent import SECTIONS
from agents.souls import SoulError, diff_souls, publish, published_soul, read_soul, roll_back, sections_of


@admin.register(Soul)
class SoulAdmin(ScopedAdmin[Soul]):
    """Drafts are edited, compared, published; published and retired versions are shown."""

    department_path = "agent__department"
    list_display = ("__str__", "department", "status", "author", "published_at", "note")
    list_filter = ("status", "agent__department")
    search_fields = ("agent__slug", "note")
    list_select_related = ("agent__department", "author")
    ordering = ("agent", "-number", "-pk")
    fields = ("agent", *SECTIONS, "note")
    change_form_template = "admin/agents/soul/change_form.html"

    def get_urls(self) -> list[URLPattern]:
        """Publish and roll back: a page that asks, a POST that does."""
        wrap = self.admin_site.admin_view
        return [
            path("<int:pk>/publish/", wrap(self.publish_view), name="agents_soul_publish"),
            path("<int:pk>/roll-back/", wrap(self.roll_back_view), name="agents_soul_roll_back"),
            *super().get_urls(),
        ]

    def has_change_permission(self, request: HttpRequest, obj: Soul | None = None) -> bool:
        """A published version never changes."""
        return super().has_change_permission(request, obj) and _is_draft(obj)

    def has_delete_permission(self, request: HttpRequest, obj: Soul | None = None) -> bool:
        """A published version is never deleted."""
        return super().has_delete_permission(request, obj) and _is_draft(obj)

    def get_readonly_fields(self, request: HttpRequest, obj: Soul | None = None) -> tuple[str, ...]:
        """A draft stays with its agent."""
        return ("agent",) if obj else ()

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """A draft for ``?agent=`` begins with the version in force, or with the one of ``?from=``."""
        initial: dict[str, Any] = dict(super().get_changeform_initial_data(request))
        asked, origin = request.GET.get("agent", ""), request.GET.get("from", "")
        agents = Agent.objects.filter(department__in=administered(request))
        agent = agents.filter(pk=asked).first() if asked.isdecimal() else None
        if agent is None:
            return initial
        if origin == "shipped":
            return {**_shipped(agent), "agent": agent.pk}
        old = Soul.objects.filter(agent=agent, pk=origin).first() if origin.isdecimal() else None
        return {**sections_of(old or published_soul(agent)), "agent": agent.pk}

    def save_model(self, request: HttpRequest, obj: Soul, form: forms.ModelForm[Soul], change: bool) -> None:
        """A new draft is its writer's."""
        if not change:
            obj.author_id = request.user.pk
        super().save_model(request, obj, form, change)

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Soul | None = None,
    ) -> HttpResponse:
        """Below the form: what a draft would change, or how a version differs from the one in force."""
        if obj is not None:
            in_force = published_soul(obj.agent)
            context |= {"in_force": in_force, "diff": diff_souls(in_force, obj)}
        return super().render_change_form(request, context, add, change, form_url, obj)

    def publish_view(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """Ask, with what changes for the agent; then publish."""
        soul = self._soul(request, pk)
        if request.method != "POST":
            return self._ask(request, soul, "Publish", f"Publish this draft as the SOUL of {soul.agent}?")
        try:
            if publish(soul=soul, author=request.user):
                self.log_change(request, soul, f"Published as SOUL {soul.number}.")
                messages.success(request, f"{soul} is in force for every later run.")
            else:
                state = soul.get_status_display()
                messages.warning(request, f"Nothing was changed: {soul} is {state} already.")
        except SoulError as error:
            messages.error(request, str(error))
        return HttpResponseRedirect(reverse("admin:agents_soul_change", args=[soul.pk]))

    def roll_back_view(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """Ask, with what changes for the agent; then publish a copy of the old version."""
        soul = self._soul(request, pk)
        if request.method != "POST":
            return self._ask(request, soul, "Roll back", f"Publish a copy of {soul}?")
        try:
            copy = roll_back(agent=soul.agent, number=soul.number or 0, author=request.user)
        except SoulError as error:
            messages.error(request, str(error))
            return HttpResponseRedirect(reverse("admin:agents_soul_change", args=[soul.pk]))
        self.log_change(request, copy, f"Rolled back to SOUL {soul.number}.")
        messages.success(request, f"{copy} is in force: a copy of SOUL {soul.number}.")
        return HttpResponseRedirect(reverse("admin:agents_soul_change", args=[copy.pk]))

    @admin.display(ordering="agent__department")
    def department(self, soul: Soul) -> Department:
        """The department of the agent."""
        return soul.agent.department

    def _soul(self, request: HttpRequest, pk: int) -> Soul:
        soul = get_object_or_404(self.get_queryset(request).select_related("agent"), pk=pk)
        if not self.has_view_permission(request, soul):
            raise PermissionDenied
        return soul

    def _ask(self, request: HttpRequest, soul: Soul, verb: str, question: str) -> HttpResponse:
        in_force = published_soul(soul.agent)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": question,
            "soul": soul,
            "verb": verb,
            "in_force": in_force,
            "diff": diff_souls(in_force, soul),
        }
        return TemplateResponse(request, "admin/agents/soul/confirm.html", context)


@admin.register(ModelPrice)
class ModelPriceAdmin(SuperuserAdmin[ModelPrice]):
    """Prices are added, never changed: calls keep the row that priced them. An unused one can be deleted."""

    form = PriceForm
    list_display = ("model", "effective_from", "prompt_tokens_over", "input_usd", "output_usd", "source")
    list_filter = ("model",)

    def has_change_permission(self, request: HttpRequest, obj: ModelPrice | None = None) -> bool:
        return False


@admin.register(ModelState)
class ModelStateAdmin(SuperuserAdmin[ModelState]):
    """What the workers know of each model at each key."""

    list_display = ("model", "api_key_env", "breaker", "failures", "closed_until", "in_flight_cap", "reason")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: ModelState | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ModelState | None = None) -> bool:
        return False


@admin.register(KnowledgeDocument)
class KnowledgeDocumentAdmin(ScopedAdmin[KnowledgeDocument]):
    """What a department's agents may look up."""

    form = DocumentForm
    list_display = ("title", "department", "source", "uploaded_by", "updated_at")
    list_filter = ("department",)
    search_fields = ("title", "source")
    fields = ("department", "upload", "title", "source", "text")

    def get_readonly_fields(self, request: HttpRequest, obj: KnowledgeDocument | None = None) -> tuple[str, ...]:
        """A document stays in its department: passages of it have been cited there."""
        return ("department",) if obj else ()

    def save_model(
        self,
        request: HttpRequest,
        obj: KnowledgeDocument,
        form: forms.ModelForm[KnowledgeDocument],
        change: bool,
    ) -> None:
        """Store it and make it searchable."""
        with transaction.atomic():
            obj.uploaded_by_id = request.user.pk
            obj.save()
            index_document(obj)


def _is_draft(soul: Soul | None) -> bool:
    return soul is None or soul.status == Soul.Status.DRAFT


def _shipped(agent: Agent) -> dict[str, str]:
    """The SOUL that this release ships for the agent; empty sections if it ships none."""
    try:
        return read_soul(Path(agent.department.spec.souls_dir) / f"{agent.slug}.md")
    except (LookupError, SoulError):
        return sections_of(None)
