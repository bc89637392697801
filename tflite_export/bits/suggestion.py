"""`BitSuggestion`: the result of `suggest_bits`, which prints and plots."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from tf_lsq.training.plots import STYLE

from ..atomic_file import check_writable, write_atomically
from ..pictures import PLOT_SUFFIXES

_CURVE, _UNIFORM, _CHOSEN = "#4269d0", "#9c6b4e", "#ff725c"
_DPI = 150


@dataclasses.dataclass(frozen=True)
class TradeOff:
    """One way to give bits to layers.

    Attributes:
        file_bytes: Size of the file.
        sensitivity: Sum of the sensitivities of all layers.
    """

    file_bytes: int
    sensitivity: float


@dataclasses.dataclass(frozen=True)
class LayerBits:
    """The bits of one layer.

    Attributes:
        layer: Name of the user's layer; "model/layer" in a model inside the model.
        weight_bits: Bits suggested for its kernel.
        activation_bits: Bits suggested for its input.
        num_bytes: Bits of its kernel -> bytes of kernel, bias and their scales in the
            container that the target and the storage select; as compiled, of the
            kernel.
        sensitivities: Bits of its kernel -> how much further the outputs move from
            those of the float model, see `suggest_bits`.
    """

    layer: str
    weight_bits: int
    activation_bits: int
    num_bytes: dict[int, int]
    sensitivities: dict[int, float]


@dataclasses.dataclass(frozen=True)
class BitSuggestion:
    """Bits for every layer that keep the file within a budget.

    Attributes:
        overrides: For `tf_lsq.quantize_model`.
        file_bytes: Size of the file, exported with these bits before any training.
        budget_bytes: Largest size of the file.
        target: What the file will run on.
        storage: How codes are stored.
        divergence: Measure of sensitivities: "kl" or "mse".
        layers: Every layer whose bits were searched.
        curve: The choices that no other choice beats in both bytes and sensitivity,
            the smallest first. Bytes are those of the kernels plus the other bytes of
            the suggested file.
        uniform: Bits -> the file with these bits in all kernels, as exported.
        compiler: What compiled the files whose bytes are counted, "" if nothing did.
    """

    overrides: dict[str, Any]
    file_bytes: int
    budget_bytes: int
    target: str
    storage: str
    divergence: str
    layers: list[LayerBits]
    curve: list[TradeOff]
    uniform: dict[int, TradeOff]
    compiler: str = ""

    @property
    def sensitivities(self) -> dict[str, dict[int, float]]:
        """Layer -> bits of its kernel -> sensitivity."""
        return {layer.layer: layer.sensitivities for layer in self.layers}

    @property
    def sensitivity(self) -> float:
        """Sum of the sensitivities of all layers with the suggested bits."""
        return sum(layer.sensitivities[layer.weight_bits] for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain data."""
        return {**dataclasses.asdict(self), "sensitivity": self.sensitivity}

    def __str__(self) -> str:
        """Returns a readable table."""
        compiled = f", compiled by {self.compiler}" if self.compiler else ""
        lines = [
            f"{self.file_bytes} of {self.budget_bytes} bytes for {self.target} with "
            f"{self.storage} storage{compiled}",
            *self._layer_lines(),
            f"suggested            {_describe(self.file_bytes, self.sensitivity)}",
        ]
        for bits, trade_off in self.uniform.items():
            described = _describe(trade_off.file_bytes, trade_off.sensitivity)
            fits = "" if trade_off.file_bytes <= self.budget_bytes else ", too large"
            lines.append(f"all kernels {bits} bits   {described}{fits}")
        return "\n".join(lines)

    def _layer_lines(self) -> list[str]:
        """Returns the table of layers."""
        width = max([len(layer.layer) for layer in self.layers] + [5])
        candidates = list(self.uniform)
        heads = "".join(f"  {f'{self.divergence} at {bits}':>8}" for bits in candidates)
        lines = [f"{'layer':<{width}}  kernel  input    bytes{heads}"]
        for layer in self.layers:
            values = "".join(
                f"  {layer.sensitivities[bits]:>8.2g}" for bits in candidates
            )
            lines.append(
                f"{layer.layer:<{width}}  {layer.weight_bits:>6} "
                f"{layer.activation_bits:>6}  {layer.num_bytes[layer.weight_bits]:>8}"
                f"{values}"
            )
        return lines

    def plot(self, path: str | Path) -> None:
        """Plots sensitivity against bytes.

        The line is the best that any choice of bits reaches; the plot also shows the
        suggestion, the budget, and the same bits for all kernels.

        Args:
            path: The file to write, `.png`, `.svg` or `.pdf`; an existing one is
                replaced atomically.

        Raises:
            ValueError: If `path` has another suffix.
            OSError: If `path` cannot be written.
        """
        path = Path(path)
        if path.suffix not in PLOT_SUFFIXES:
            raise ValueError(
                f"`path` must end with one of {list(PLOT_SUFFIXES)}. Received: "
                f"{str(path)!r}."
            )
        check_writable(path)
        file = io.BytesIO()
        with mpl.rc_context(STYLE):
            self._figure().savefig(file, format=path.suffix[1:], dpi=_DPI)
        write_atomically(path, file.getvalue())

    def _figure(self) -> Figure:
        """Returns the plot."""
        figure = Figure((6.0, 3.6), layout="constrained")
        axes = figure.add_subplot()
        points = [*self.curve, *self.uniform.values()]
        positive = [p.sensitivity for p in points if p.sensitivity > 0]
        axes.plot(
            [point.file_bytes for point in self.curve],
            [point.sensitivity for point in self.curve],
            drawstyle="steps-post",
            color=_CURVE,
            label="best mix of bits",
        )
        for bits, trade_off in self.uniform.items():
            axes.plot(
                trade_off.file_bytes, trade_off.sensitivity, "o", color=_UNIFORM, ms=4
            )
            axes.annotate(
                f"{bits} bits",
                (trade_off.file_bytes, trade_off.sensitivity),
                (4, 4),
                textcoords="offset points",
                color=_UNIFORM,
            )
        axes.plot(
            self.file_bytes,
            self.sensitivity,
            "*",
            color=_CHOSEN,
            ms=10,
            label="suggested",
        )
        axes.axvline(self.budget_bytes, color="#888", lw=0.8, label="budget")
        # Logarithmic down to the smallest value, then linear, to include 0.
        axes.set_yscale("symlog", linthresh=min(positive, default=1.0))
        axes.set_ylim(0, 2 * max(positive, default=1.0))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("bytes of the file")
        axes.set_ylabel(f"sum of sensitivities ({self.divergence})")
        axes.grid(color="#e5e5e5")
        axes.legend(frameon=False)
        return figure


def _describe(file_bytes: int, sensitivity: float) -> str:
    """Returns the size and sensitivity as readable text."""
    return f"{file_bytes} bytes, sensitivity {sensitivity:.3g}"
