"""Writes an export report as a self-contained HTML page without scripts."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from tf_lsq.training.plots import ACTIVATION, KERNEL, STYLE

from ..atomic_file import check_writable, write_atomically
from .export_report import ExportReport, LayerReport
from .templating import render
from .verification_report import CodeStatistics, PointReport

_COLORS = {
    "int8": "#4269d0",
    "int4": "#3ca951",
    "int2": "#efb118",
    "float32": "#9c6b4e",
}
_OWN, _INT8, _FLOAT32 = "#3ca951", "#4269d0", "#9c6b4e"
_WIDTH = 9.0
_ROW = 0.19  # Height of a bar, in inches.


def write_html_report(report: ExportReport, path: str | Path) -> None:
    """Writes a report as one self-contained HTML file.

    For each layer it shows the bits, container, bytes and latency, how its integers are
    used, what share is clipped, and the learned step compared with that of least
    squared error; for each tensor the codes that differ from the training graph; and
    code that runs the file. Parts that need data or a measurement are included if the
    report has them: see `data` and `benchmark` of `export_model`.

    Args:
        report: A report from `export_model`.
        path: The file to write; an existing one is replaced atomically.

    Raises:
        OSError: If `path` cannot be written.
    """
    path = Path(path)
    check_writable(path)
    filters = {
        "share": _share,
        "figures": "{:.4g}".format,
        "integer": "{:,}".format,
        "histogram": _histogram,
    }
    with mpl.rc_context(STYLE):
        page = render(
            "report.html.j2",
            autoescape=True,
            filters=filters,
            values={
                "report": report,
                "found": report.verification,
                "plots": _plots(report),
            },
        )
    write_atomically(path, page.encode())


def _share(value: float | None) -> str:
    """Returns a share in percent; small shares are not shown as 0."""
    if value is None:
        return ""
    return "0" if value == 0 else f"{100 * value:.3g} %"


# --- Plots -------------------------------------------------------------------


def _plots(report: ExportReport) -> list[tuple[str, Markup]]:
    """Returns (title, SVG) of every plot that the report has numbers for."""
    points = report.verification.points
    counted: list[tuple[LayerReport | PointReport, str]]
    counted = [(layer, KERNEL) for layer in report.layers]
    counted += [(point, ACTIVATION) for point in points]
    known = [
        (one.name, one.statistics, color)
        for one, color in counted
        if one.statistics is not None
    ]
    plots = [("Bytes of kernel and bias", _bytes_plot(report.layers))]
    if known:
        plots.append(("Learned step / step of least squared error", _step_plot(known)))
    if points:
        plots.append(("Codes that differ from the training graph", _point_plot(points)))
    timed = [layer for layer in report.layers if layer.latency is not None]
    if timed:
        plots.append(("Latency of each operator alone", _latency_plot(timed)))
    return plots


def _rows(
    names: list[str],
    label: str,
    draw: Callable[[Any, np.ndarray], None],
    height: float = 1,
) -> Markup:
    """Returns a plot with one row per name, the first at the top."""
    figure = Figure((_WIDTH, 0.6 + height * _ROW * len(names)), layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(names))
    draw(axes, places)
    axes.set_yticks(places, names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(label)
    axes.grid(axis="x", color="#e5e5e5")
    return _svg(figure)


def _bytes_plot(layers: list[LayerReport]) -> Markup:
    """Returns a bar per kernel, in the color of its container."""

    def draw(axes: Any, places: np.ndarray) -> None:
        for container, color in _COLORS.items():
            chosen = [i for i, x in enumerate(layers) if x.container == container]
            if chosen:
                sizes = [layers[i].num_bytes for i in chosen]
                axes.barh(places[chosen], sizes, color=color, label=container)
        axes.legend(loc="lower right", frameon=False)

    return _rows([layer.name for layer in layers], "bytes", draw)


def _step_plot(rows: list[tuple[str, CodeStatistics, str]]) -> Markup:
    """Returns a dot per quantizer, on a logarithmic axis."""

    def draw(axes: Any, places: np.ndarray) -> None:
        ratios = np.array(
            [statistics.step / statistics.mse_step for _, statistics, _ in rows]
        )
        for color, label in ((KERNEL, "kernel"), (ACTIVATION, "activation")):
            chosen = [i for i, row in enumerate(rows) if row[2] == color]
            axes.plot(
                ratios[chosen], places[chosen], "o", color=color, label=label, ms=4
            )
        axes.axvline(1, color="#888", lw=0.8)
        axes.set_xscale("log", base=2)
        # Limits at powers of two, at least one on each side.
        reach = 2.0 ** np.ceil(np.abs(np.log2(ratios)).max(initial=1e-9))
        axes.set_xlim(0.9 / reach, 1.1 * reach)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.legend(loc="lower right", frameon=False)

    return _rows([name for name, _, _ in rows], "learned / least squared error", draw)


def _point_plot(points: list[PointReport]) -> Markup:
    """Returns a bar per tensor: the share of codes that are off by one."""
    shares = [100 * point.off_by_one / point.num_codes for point in points]
    return _rows(
        [point.name for point in points],
        "% of codes off by one",
        lambda axes, places: axes.barh(places, shares, color=ACTIVATION),
    )


def _latency_plot(layers: list[LayerReport]) -> Markup:
    """Returns three bars per operator."""

    def draw(axes: Any, places: np.ndarray) -> None:
        for offset, kind, color in (
            (-0.27, "own", _OWN),
            (0.0, "int8", _INT8),
            (0.27, "float32", _FLOAT32),
        ):
            times = [getattr(layer.latency, kind) for layer in layers]
            label = "this file" if kind == "own" else kind
            axes.barh(places + offset, times, height=0.25, color=color, label=label)
        axes.legend(loc="lower right", frameon=False)

    return _rows([layer.name for layer in layers], "ms", draw, height=1.6)


def _histogram(found: CodeStatistics) -> Markup:
    """Returns a small plot of how often each integer is used.

    Heights are square roots of counts, so that rare integers are visible next to zero.
    """
    figure = Figure((1.7, 0.34))
    axes = figure.add_axes((0, 0, 1, 1))
    heights = np.sqrt(found.counts)
    edges = found.q_min - 0.5 + found.width * np.arange(len(heights) + 1)
    axes.stairs(heights, edges, fill=True, color="#4269d0")
    axes.axis("off")
    return _svg(figure)


def _svg(figure: Figure) -> Markup:
    """Returns a figure as an element of a page."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    return Markup(text[text.index("<svg") :])
