"""Items, triggers, outputs, runs, calls, the log, and what people did: one file a topic."""

from runs.models.alert import Alert, AlertDelivery
from runs.models.call import ModelCall, ModelCallBody, ToolCall
from runs.models.conversation import Message, OutboxMessage, Suppression
from runs.models.item import Item, Trigger
from runs.models.log import LogEntry
from runs.models.output import Output
from runs.models.people import Action, BulkAction, Review
from runs.models.rule import Rule
from runs.models.run import AgentRun, PipelineRun
from runs.models.shift import ShiftSlot

__all__ = [
    "Action",
    "AgentRun",
    "Alert",
    "AlertDelivery",
    "BulkAction",
    "Item",
    "LogEntry",
    "Message",
    "ModelCall",
    "ModelCallBody",
    "OutboxMessage",
    "Output",
    "PipelineRun",
    "Review",
    "Rule",
    "ShiftSlot",
    "Suppression",
    "ToolCall",
    "Trigger",
]
