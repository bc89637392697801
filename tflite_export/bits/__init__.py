"""Bits for every layer, under a budget of file bytes."""

from .budget import BudgetError
from .search import suggest_bits
from .suggestion import BitSuggestion

__all__ = ["BitSuggestion", "BudgetError", "suggest_bits"]
