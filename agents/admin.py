"""Admin pages: SOULs, prices, documents, the state of the models. ``runs.admin`` has the rest."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone

from agents.admin_access import ReadOnlyAdmin, ScopedAdmin, SuperuserAdmin
from agents.admin_forms import DocumentForm, PriceForm
from agents.knowledge import index_document
from agents.models import Agent, Department, KnowledgeDocument, ModelPrice, ModelState, Soul
from agents.models.agent import SECTIONS
from agents.pricing import why_kept


@admin.register(Soul)
class SoulAdmin(ReadOnlyAdmin[Soul]):
    """Every version, to look at. They are written and published on the agents' pages, which record who did it."""

    department_path = "agent__department"
    list_display = ("__str__", "department", "status", "author", "published_at", "note")
    list_filter = ("status", "agent__department")
    search_fields = ("agent__slug", "note")
    list_select_related = ("agent__department", "author")
    ordering = ("agent", "-number", "-pk")
    fields = ("agent", *SECTIONS, "note")

    @admin.display(ordering="agent__department")
    def department(self, soul: Soul) -> Department:
        """The department of the agent."""
        return soul.agent.department


@admin.register(ModelPrice)
class ModelPriceAdmin(SuperuserAdmin[ModelPrice]):
    """A new price is a new row with its date. An entry that was wrong can be corrected; an unused one be deleted.

    Calls that a wrong entry has priced keep their costs until somebody runs ``recompute_costs``.
    """

    form = PriceForm
    list_display = ("model", "effective_from", "prompt_tokens_over", "input_usd", "output_usd", "source")
    list_filter = ("model",)

    def get_readonly_fields(self, request: HttpRequest, obj: ModelPrice | None = None) -> tuple[str, ...]:
        """What a price is about stays: another model, date or band is another row."""
        return ("model", "effective_from", "prompt_tokens_over") if obj is not None else ()

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """A price that calls of today need stays, as a model without a price is refused everywhere else."""
        deleted, counts, missing, protected = super().get_deleted_objects(objs, request)
        agents = Agent.objects.values_list("model", "fallback_models")
        used = {name for model, fallbacks in agents for name in (model, *fallbacks)}
        ids, today = [price.pk for price in objs], timezone.now().astimezone(UTC).date()
        for price in objs:
            prices = ModelPrice.objects.filter(model=price.model) if price.model in used else []
            if prices and (why := why_kept(prices, price, ids, today)):
                protected.append(why)
        return deleted, counts, missing, protected

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:
        """The history of a price keeps what it was: a correction replaces it in place."""
        if add:
            return super().construct_change_message(request, form, formsets, add)
        changes = [f"{name} from {form.initial[name]} to {form.cleaned_data[name]}" for name in form.changed_data]
        return f"Changed {', '.join(changes)}." if changes else "No fields changed."

    def save_model(self, request: HttpRequest, obj: ModelPrice, form: Any, change: bool) -> None:
        """Say what a correction, or a price entered late, does not do by itself."""
        super().save_model(request, obj, form, change)
        if form.changed_data and obj.effective_from <= timezone.now().astimezone(UTC).date():
            text = (
                "Calls from now on are priced with this. Those before keep their costs: "
                f"manage.py recompute_costs --from {obj.effective_from} --model {obj.model} shows the difference."
            )
            self.message_user(request, text, messages.WARNING)


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
