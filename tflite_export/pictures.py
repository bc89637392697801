"""Files that plots are written to."""

from __future__ import annotations

PLOT_SUFFIXES = (".png", ".svg", ".pdf")
