"""What the engine writes, in the admin to read."""

from __future__ import annotations

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property

from agents.admin_access import ReadOnlyAdmin, SuperuserAdmin
from runs.models import (
    Action,
    AgentRun,
    Alert,
    AlertDelivery,
    BulkAction,
    Item,
    LogEntry,
    Message,
    ModelCall,
    OutboxMessage,
    Output,
    PipelineRun,
    Review,
    ShiftSlot,
    ToolCall,
    Trigger,
)


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts no further than this: counting a million log lines takes longer than reading the first page."""

    MOST = 10_000

    @cached_property
    def count(self) -> int:
        """The number of rows, or ``MOST`` if there are more."""
        rows: QuerySet[Model] = self.object_list  # type: ignore[assignment]
        return rows[: self.MOST].count()


class EngineAdmin(ReadOnlyAdmin[Model]):
    """Newest first, without expensive counts."""

    ordering = ("-pk",)
    paginator = BoundedPaginator
    show_full_result_count = False
    list_per_page = 50


def _read_only(model: type[Model], columns: str, path: str = "item__department", search: str = "") -> None:
    """Register a table with the columns of its list, the way to its department, and what can be searched."""
    names = columns.split()
    related = [name for name in names if getattr(model._meta.get_field(name), "many_to_one", False)]
    attributes = {
        "__doc__": model.__doc__,
        "department_path": path,
        "list_display": ("pk", *names),
        "list_select_related": tuple(related),
        "search_fields": tuple(search.split()),
    }
    admin.site.register(model, type(f"{model.__name__}Admin", (EngineAdmin,), attributes))


_read_only(Item, "title department status automation priority route_due_at", "department", "title")
_read_only(Trigger, "item kind status source due_at settled_at")
_read_only(Output, "item key number trigger is_current verdict created_at")
_read_only(PipelineRun, "item status cause started_at ended_at")
_read_only(AgentRun, "item agent status attempt failures waiting_for due_at ended_at", "department")
_read_only(ModelCall, "agent status model_asked input_tokens output_tokens cost_usd started_at", "department")
_read_only(ToolCall, "name agent_run is_error latency_ms started_at", "agent_run__department")
_read_only(LogEntry, "at level kind text", "department")
_read_only(Message, "item direction subject address at")
_read_only(OutboxMessage, "key status address release_at sent_at", "department", "key address")
_read_only(Review, "ask department kind risk status deadline", "department")
_read_only(Action, "at user verb target reason", "department")
_read_only(Alert, "last_at department kind state count text", "department", "text key")
_read_only(AlertDelivery, "alert target status attempt due_at ended_at error", "alert__department", "target")
_read_only(BulkAction, "verb department user status total done", "department")


@admin.register(ShiftSlot)
class ShiftSlotAdmin(SuperuserAdmin[ShiftSlot]):
    """Who works where now."""

    list_display = ("number", "worker", "in_flight", "started_at", "heartbeat_at", "lease_expires_at")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: ShiftSlot | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ShiftSlot | None = None) -> bool:
        return False
