"""File formats of plots."""

from __future__ import annotations

PLOT_SUFFIXES = (".png", ".svg", ".pdf")
