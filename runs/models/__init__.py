"""Items, triggers, outputs, runs, calls, the log, and what people did: one file a topic."""

from runs.models.alert import Alert, AlertDelivery
from runs.models.call import ModelCall, ModelCallBody, ToolCall
from runs.models.conversation import Channel, Message, OutboxMessage, Sender, Suppression
from runs.models.costs import CostCorrection, CostRollup, ItemCost, ItemOutcome, ItemTotal
from runs.models.health import AgentHour, DepartmentHour, HourCount
from runs.models.item import Item, Trigger
from runs.models.lists import ListChoice, SavedView
from runs.models.log import LogEntry
from runs.models.output import Output
from runs.models.people import Action, AutoApproval, BulkAction, Review, RiskRule, SendBack
from runs.models.reviewing import Absence, DraftGroup, EditPattern
from runs.models.rule import Rule
from runs.models.run import AgentRun, PipelineRun, StatusCount
from runs.models.shift import ShiftSlot
from runs.models.sign_in import SignInAttempt
from runs.models.tryout import TryOut

__all__ = [
    "Absence",
    "Action",
    "AgentHour",
    "AgentRun",
    "Alert",
    "AlertDelivery",
    "AutoApproval",
    "BulkAction",
    "Channel",
    "CostCorrection",
    "CostRollup",
    "DepartmentHour",
    "DraftGroup",
    "EditPattern",
    "HourCount",
    "Item",
    "ItemCost",
    "ItemOutcome",
    "ItemTotal",
    "ListChoice",
    "LogEntry",
    "Message",
    "ModelCall",
    "ModelCallBody",
    "OutboxMessage",
    "Output",
    "PipelineRun",
    "Review",
    "RiskRule",
    "Rule",
    "SavedView",
    "SendBack",
    "Sender",
    "ShiftSlot",
    "SignInAttempt",
    "StatusCount",
    "Suppression",
    "ToolCall",
    "Trigger",
    "TryOut",
]
