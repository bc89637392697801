"""Plots of what `Diagnostics` records."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

KERNEL, ACTIVATION = "#4269d0", "#ff725c"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # Text stays text: small and searchable.
    "svg.hashsalt": "tf_lsq",
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.parse_math": False,
}
_WIDTH = 9.0
_ROW = 0.19  # Height of a layer, in inches.
_COLUMNS = 5

History = dict[str, Any]


def write_plots(
    history: History, codes: dict[str, np.ndarray], kernels: set[str], folder: Path
) -> list[Path]:
    """Writes the plots that a history has data for, and returns their paths.

    Args:
        history: See `Diagnostics`.
        codes: Layer name -> its integers.
        kernels: Names of the layers whose kernel is quantized; the others are points.
        folder: Output folder; it is created if it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        figures = {
            "steps": _relative_steps(history, kernels),
            "clipped": _clipped_shares(history, kernels),
            "codes": _codes_figure(history, codes, kernels),
        }
        if "ratio" in history:
            figures["ratios"] = _ratio_figure(history, kernels)
        paths = [folder / f"{name}.svg" for name in figures]
        for path, figure in zip(paths, figures.values(), strict=True):
            figure.savefig(path, metadata={"Date": None})
    return paths


# --- Over the training ---------------------------------------------------------------


def _relative_steps(history: History, kernels: set[str]) -> Figure:
    """Returns the steps, each relative to its first value."""
    means = {n: [np.mean(step) for step in s] for n, s in history["step"].items()}
    lines = {name: np.array(mean) / mean[0] for name, mean in means.items()}
    figure = _over_training(history, kernels, lines, "step / first recorded step")
    # The limits are powers of two, at least one on each side.
    farthest = max(np.abs(np.log2(line)).max() for line in lines.values())
    reach = 2.0 ** max(np.ceil(farthest), 1)
    for axes in figure.axes:
        axes.set_yscale("log", base=2)
        axes.set_ylim(0.95 / reach, 1.05 * reach)
        axes.yaxis.set_major_formatter("{x:g}")
    return figure


def _clipped_shares(history: History, kernels: set[str]) -> Figure:
    """Returns the clipped shares."""
    lines = {
        name: 100 * np.array(shares) for name, shares in history["clipped"].items()
    }
    return _over_training(history, kernels, lines, "% of values clipped")


def _over_training(
    history: History, kernels: set[str], lines: dict[str, np.ndarray], label: str
) -> Figure:
    """Returns lines over the batches: kernels on the left, activations on the right."""
    figure = Figure((_WIDTH, 2.5 + 0.1 * len(lines)), layout="constrained")
    colors = mpl.colormaps["viridis"]
    kinds = ("kernels", "activations")
    for axes, kind in zip(figure.subplots(1, 2, sharey=True), kinds, strict=True):
        names = [n for n in lines if (n in kernels) == (kind == "kernels")]
        for number, name in enumerate(names):
            color = colors(0.9 * number / max(len(names) - 1, 1))
            axes.plot(history["batch"], lines[name], color=color, lw=1.2, label=name)
        axes.set_title(kind)
        axes.set_xlabel("batches")
        axes.grid(color="#e5e5e5")
        if names:
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.axes[0].set_ylabel(label)
    return figure


# --- Per layer -----------------------------------------------------------------------


def _ratio_figure(history: History, kernels: set[str]) -> Figure:
    """Returns R of each layer, geometric mean and range, with and without g."""
    names = list(history["ratio"])
    figure = Figure((_WIDTH, 0.9 + _ROW * len(names)), layout="constrained")
    axes = figure.subplots()
    for quantity, label in (("ratio", "R"), ("unscaled_ratio", "R with g = 1")):
        for row, name in enumerate(names):
            ratios = np.array(history[quantity][name])
            ratios = ratios[np.isfinite(ratios) & (ratios > 0)]
            if not ratios.size:
                continue
            color = _color(name, kernels)
            face = color if quantity == "ratio" else "white"
            typical = math.exp(np.log(ratios).mean())
            axes.plot([ratios.min(), ratios.max()], [row, row], color=color, lw=0.8)
            axes.plot(typical, row, "o", color=color, markerfacecolor=face, ms=4)
        fill = "black" if quantity == "ratio" else "white"
        axes.plot([], [], "o", color="black", markerfacecolor=fill, ms=4, label=label)
    for color, label in ((KERNEL, "kernel"), (ACTIVATION, "activation")):
        axes.plot([], [], color=color, label=label)
    axes.axvline(1, color="#888", lw=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("relative update of the step / relative update of the weights")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x", color="#e5e5e5")
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure


def _codes_figure(
    history: History, codes: dict[str, np.ndarray], kernels: set[str]
) -> Figure:
    """Returns a histogram per layer: the last record filled, the first as a line."""
    rows = math.ceil(len(codes) / _COLUMNS)
    figure = Figure((_WIDTH, 0.4 + 1.1 * rows), layout="constrained")
    grid = figure.subplots(rows, _COLUMNS, squeeze=False)
    for axes in grid.flat[len(codes) :]:
        axes.axis("off")
    for axes, (name, integers) in zip(grid.flat, codes.items(), strict=False):
        edges = np.append(integers, 2 * integers[-1] - integers[-2]) - 0.5
        counts = history["counts"][name]
        first, last = (
            100 * record / record.sum() for record in (counts[0], counts[-1])
        )
        axes.stairs(last, edges, fill=True, color=_color(name, kernels), label="last")
        axes.stairs(first, edges, color="black", lw=0.6, label="first")
        axes.set_title(name, fontsize=6)
        axes.tick_params(labelsize=6)
    figure.axes[0].legend(frameon=False, fontsize=6)
    figure.supylabel("% of values")
    return figure


def _color(name: str, kernels: set[str]) -> str:
    """Returns the color of a layer."""
    return KERNEL if name in kernels else ACTIVATION
