"""Writes tables and plots of the results of `paper_tables.py`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from paper_runs import BATCH_SIZE, GRADIENT_SCALES, Budget

Results = dict[str, dict[str, Any]]
WIDTHS = (8, 4, 3, 2)
MISSING = "not run"
# The paper's accuracies at 2 bits, ImageNet, ResNet-18 (Tables 2 and 3, Section 3.5).
PAPER = {
    "g = 1 / sqrt(N Q_P)": "67.6",
    "g = 1 / sqrt(N)": "67.3",
    "g = 1": "did not converge",
    "g = 10 / sqrt(N Q_P)": "67.4",
    "g = 1 / (10 sqrt(N Q_P))": "67.3",
    "weight decay 0.0001": "66.9",
    "weight decay 5e-05": "67.3",
    "weight decay 2.5e-05": "67.6",
    "weight decay 1.25e-05": "67.4",
    "updates of steps not bounded": "67.6",
    "cosine schedule": "67.6",
    "step schedule": "67.2",
}

TEMPLATE = Path(__file__).with_name("paper_tables_template.md")


def write(results: Results, folder: Path, budget: Budget, iterations: int) -> None:
    """Writes `FOLDER.md` and the plots in `FOLDER`."""
    matplotlib.rcParams["svg.hashsalt"] = "paper_tables"
    _plot_steps(results, folder / "steps.svg")
    _plot_ratios(results, folder / "ratios.svg")
    machines = sorted({row["machine"] for row in results.values()})
    text = TEMPLATE.read_text().format(
        output=folder.as_posix(),
        machines="; ".join(machines),
        missing=MISSING,
        batch=BATCH_SIZE,
        iterations=iterations,
        seeds=", ".join(_seeds(results)),
        float_epochs=budget.float_epochs,
        epochs=budget.epochs,
        long_epochs=budget.long_epochs,
        short_epochs=budget.short_epochs,
        bits=_bits_rows(results),
        differences=_difference_rows(results),
        longer=_longer_rows(results),
        files=_file_rows(results),
        cifar=_cifar_rows(results),
        ablations=_ablation_rows(results),
        steps=_step_rows(results),
        ratios=_ratio_rows(results),
        tfmot=_tfmot_rows(results),
        tfmot_float=_percent(results, "tfmot/float", "test"),
        tfmot_continued=_percent(results, "tfmot/float, continued", "test"),
        start=_percent(results, "fashion/0/float", "test"),
        optimizers=_optimizer_rows(results),
        mixed=_mixed_rows(results),
    )
    folder.with_suffix(".md").write_text(text)


def _percent(results: Results, name: str, key: str) -> str:
    """Formats one figure in percent."""
    if "failed" in results.get(name, {}):
        return "diverged"
    value = results.get(name, {}).get(key)
    return MISSING if value is None else f"{100 * value:.2f}"


def _row(*cells: Any) -> str:
    """Formats one row of a table."""
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def _seeds(results: Results) -> list[str]:
    """Returns the seeds that have a float network."""
    matches = [re.fullmatch(r"fashion/(\d+)/float", name) for name in results]
    return [match[1] for match in matches if match]


def _of_seeds(results: Results, name: str, key: str) -> list[float]:
    """Returns a figure of every seed that has it."""
    rows = [results.get(f"fashion/{seed}/{name}", {}) for seed in _seeds(results)]
    return [100 * row[key] for row in rows if key in row]


def _spread(values: list[float], seeds: int) -> str:
    """Formats mean, smallest and largest, and the number of seeds if not all."""
    if not values:
        return MISSING
    text = f"{np.mean(values):.2f}"
    if len(values) > 1:
        text += f" ({min(values):.2f}-{max(values):.2f})"
    return text if len(values) == seeds else f"{text}, {len(values)} of {seeds} seeds"


def _bits_rows(results: Results) -> str:
    """Returns the main table."""
    seeds = len(_seeds(results))

    def cells(name: str) -> list[str]:
        return [
            _spread(_of_seeds(results, name, key), seeds) for key in ("test", "train")
        ]

    lines = []
    for name in ("float", "float, continued"):
        test, training = cells(name)
        lines.append(_row(name, test, "", training, ""))
    for bits in WIDTHS:
        test, training = cells(f"{bits}")
        distilled, training_distilled = cells(f"{bits} distilled")
        lines.append(
            _row(f"{bits}/{bits}", test, distilled, training, training_distilled)
        )
    return "\n".join(lines)


def _paired(results: Results, name: str, other: str) -> str:
    """Formats the difference of two networks' test accuracies, seed by seed."""
    differences = [
        100 * (results[one]["test"] - results[two]["test"])
        for seed in _seeds(results)
        for one, two in [(f"fashion/{seed}/{name}", f"fashion/{seed}/{other}")]
        if one in results and two in results
    ]
    if not differences:
        return MISSING
    text = f"{np.mean(differences):+.2f}"
    if len(differences) > 1:
        text += f" ({min(differences):+.2f} to {max(differences):+.2f})"
    return text


def _difference_rows(results: Results) -> str:
    """Returns the accuracy lost to fewer bits and gained by distillation."""
    return "\n".join(
        _row(
            f"{bits}/{bits}",
            _paired(results, f"{bits}", "float"),
            _paired(results, f"{bits} distilled", "float"),
            _paired(results, f"{bits} distilled", f"{bits}"),
            _paired(results, f"{bits}", "float, continued"),
            _paired(results, f"{bits} distilled", "float, continued"),
        )
        for bits in WIDTHS
    )


def _file_rows(results: Results) -> str:
    """Returns accuracies of Keras compared with TFLite."""
    lines = []
    for bits in WIDTHS:
        cells: list[str] = []
        for name in (f"{bits}", f"{bits} distilled"):
            pairs = [_of_seeds(results, name, key) for key in ("test", "tflite")]
            if not pairs[0]:
                cells += [MISSING] * 3
                continue
            distance = np.abs(np.subtract(*pairs)).max()
            cells += [*(f"{np.mean(pair):.2f}" for pair in pairs), f"{distance:.2f}"]
        lines.append(_row(f"{bits}/{bits}", *cells))
    return "\n".join(lines)


def _longer_rows(results: Results) -> str:
    """Returns long training runs compared with those of the main table."""
    students = (f"{b}{kind}" for b in (4, 3, 2) for kind in ("", " distilled"))
    names = ("float, continued", *students)
    return "\n".join(
        _row(
            name if name.startswith("float") else name.replace(" ", ", "),
            *(_percent(results, f"fashion/0/{name}", k) for k in ("test", "train")),
            *(_percent(results, f"longer/{name}", k) for k in ("test", "train")),
        )
        for name in names
    )


def _cifar_rows(results: Results) -> str:
    """Returns the table of ResNet-8."""
    names = [name for name in results if name.startswith("cifar10/")]
    return "\n".join(
        _row(
            name.removeprefix("cifar10/"),
            results[name].get("epochs", ""),
            _percent(results, name, "test"),
            _percent(results, name, "train"),
            _percent(results, name, "tflite") if "tflite" in results[name] else "",
            f"{results[name]['bytes']:,}" if "bytes" in results[name] else "",
        )
        for name in names
    ) or _row(MISSING, "", "", "", "", "")


def _ablation_rows(results: Results) -> str:
    """Returns the table of ablations; each group includes the recipe itself."""
    recipe = {
        f"g = {next(iter(GRADIENT_SCALES))}",
        "weight decay 2.5e-05",
        "cosine schedule",
    }
    lines = []
    for changed, papers in PAPER.items():
        name = "fashion/0/2" if changed in recipe else f"ablation/{changed}"
        keys = ("test", "test, moving averages", "train")
        cells = [_percent(results, name, key) for key in keys]
        label = f"{changed} (the recipe)" if changed in recipe else changed
        lines.append(_row(label, *cells, papers))
    return "\n".join(lines)


def _differences(results: Results, bits: int, kind: str) -> list[float]:
    """Returns |learned - best| / best of every layer."""
    steps = results.get(f"fashion/0/{bits}", {}).get("steps", {}).get(kind, {})
    return [abs(learned - best) / best for learned, best in steps.values()]


def _step_rows(results: Results) -> str:
    """Returns the distances of learned steps from those of least squared error."""
    lines = []
    for bits in WIDTHS:
        differences = [
            _differences(results, bits, k) for k in ("weights", "activations")
        ]
        cells = [
            f"{100 * np.mean(one):.1f} %" if one else MISSING for one in differences
        ]
        lines.append(_row(bits, *cells))
    return "\n".join(lines)


def _geometric_mean(values: list[float]) -> float:
    """Returns the geometric mean of the positive and finite values."""
    logs = [np.log(v) for v in values if v > 0 and np.isfinite(v)]
    return float(np.exp(np.mean(logs)))


def _ratios(results: Results, bits: int, kind: str, key: str) -> list[float]:
    """Returns R of every layer of a kind and every measured iteration."""
    layers = results.get(f"ratio/{bits}", {}).get(kind, {})
    return [value for layer in layers.values() for value in layer[key]]


def _ratio_rows(results: Results) -> str:
    """Returns the mean ratios."""
    lines = []
    for bits in WIDTHS:
        cells = []
        for kind in ("weights", "activations"):
            for key in ("ratio", "unscaled_ratio"):
                values = _ratios(results, bits, kind, key)
                cells.append(f"{_geometric_mean(values):.3g}" if values else MISSING)
        lines.append(_row(bits, *cells))
    return "\n".join(lines)


def _tfmot_rows(results: Results) -> str:
    """Returns accuracies of TF-MOT compared with LSQ."""
    lines = []
    for bits in WIDTHS:
        plain = _percent(results, f"tfmot/{bits} TF-MOT", "test")
        cells = []
        for kind in ("LSQ", "LSQ, all layers"):
            name = f"tfmot/{bits} {kind}"
            row = results.get(name, {})
            before = "test, moving averages" if bits == 2 else "test"
            cells += [_percent(results, name, before), _percent(results, name, "test")]
            if not row and bits == 8:
                cells[-2:] = ["", ""]
        lines.append(_row(bits, plain, *cells))
    return "\n".join(lines)


def _optimizer_rows(results: Results) -> str:
    """Returns the accuracies of short fine-tunes."""
    names = dict.fromkeys(
        name.split(" ", 1)[1] for name in results if name.startswith("optimizer/")
    )
    return "\n".join(
        _row(
            name,
            *(
                _percent(results, f"optimizer/{bits} {name}", key)
                for bits in (4, 2)
                for key in ("test", "tflite")
            ),
        )
        for name in names
    ) or _row(MISSING, "", "", "", "")


def _mixed_rows(results: Results) -> str:
    """Returns the results of uniform and suggested bits."""
    names = [name for name in results if name.startswith("mixed/")]
    rows = sorted(names, key=lambda name: results[name].get("bytes", 0))
    return "\n".join(
        _row(
            name.removeprefix("mixed/"),
            f"{results[name]['bytes']:,}" if "bytes" in results[name] else "",
            f"{results[name]['budget']:,}" if "budget" in results[name] else "",
            _percent(results, name, "test"),
            _percent(results, name, "tflite") if "tflite" in results[name] else "",
        )
        for name in rows
    ) or _row(MISSING, "", "", "", "")


def _plot_steps(results: Results, path: Path) -> None:
    """Plots learned steps divided by steps of least squared error, layer by layer."""
    figure = Figure((8, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    for plot, kind in zip(axes, ("weights", "activations"), strict=True):
        for bits in WIDTHS:
            steps = results.get(f"fashion/0/{bits}", {}).get("steps", {})
            pairs = list(steps.get(kind, {}).values())
            if pairs:
                shares = [learned / best for learned, best in pairs]
                plot.plot(shares, marker=".", label=f"{bits} bits")
        plot.axhline(1.0, color="gray", linewidth=0.5)
        plot.set(title=kind, xlabel="layer", ylabel="learned / least squared error")
        plot.set_yscale("log")
    axes[0].legend()
    figure.savefig(path, metadata={"Date": None})


def _plot_ratios(results: Results, path: Path) -> None:
    """Plots R of every layer, with and without the gradient scale."""
    figure = Figure((8, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    for plot, kind in zip(axes, ("weights", "activations"), strict=True):
        for bits in WIDTHS:
            layers = results.get(f"ratio/{bits}", {}).get(kind, {})
            for key, style in (("ratio", "-"), ("unscaled_ratio", ":")):
                means = [_geometric_mean(one[key]) for one in layers.values()]
                if means:
                    label = f"{bits} bits" + (", g = 1" if style == ":" else "")
                    plot.plot(means, style, marker=".", color=f"C{bits}", label=label)
        plot.axhline(1.0, color="gray", linewidth=0.5)
        plot.set(title=kind, xlabel="layer", ylabel="R")
        plot.set_yscale("log")
    axes[0].legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})
