"""Suggests bits for every layer within a budget of file bytes."""

from .search import suggest_bits
from .suggestion import BitSuggestion

__all__ = ["BitSuggestion", "suggest_bits"]
