"""Departments, agents, SOULs, prices, budgets and the state of the models."""

from agents.models.agent import Agent, Soul
from agents.models.budget import Budget, BudgetPeriod
from agents.models.department import Department, Installation, Member
from agents.models.knowledge import KnowledgeDocument, KnowledgePassage
from agents.models.model import ModelPrice, ModelState

__all__ = [
    "Agent",
    "Budget",
    "BudgetPeriod",
    "Department",
    "Installation",
    "KnowledgeDocument",
    "KnowledgePassage",
    "Member",
    "ModelPrice",
    "ModelState",
    "Soul",
]
