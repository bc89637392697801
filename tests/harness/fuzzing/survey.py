"""Takes one function or layer from a float model to a verified file, and judges it."""

from __future__ import annotations

import dataclasses
import itertools
import re
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

import tf_lsq
import tflite_export

from .closeness import MAX_OUTSIDE, difference
from .discovery import Item
from .float_form import has_float_form
from .models import Built, built_models, quiet
from .refusals import Refusal, read_refusal

# Outcomes.
EXACT = "exact integers"
FLOAT = "float"  # Accepted as it is; parts of the file are in float.
RESCUED = "float by override"
NO_FORM = "no form in TFLite"
FAULT = "fault"
OUTCOMES = (EXACT, FLOAT, RESCUED, NO_FORM, FAULT)
MAX_MESSAGE = 1000


class FaultError(Exception):
    """Raised for a broken promise; holds its kind and details."""

    def __init__(self, kind: str, details: Any = "") -> None:
        super().__init__(kind)
        self.kind = kind
        self.details = str(details)[:MAX_MESSAGE]


@dataclasses.dataclass
class CaseResult:
    """What became of one call.

    Attributes:
        call: Label of the call.
        outcome: One of `OUTCOMES`, "" if only the analysis ran and accepted it.
        fault: Kind of the fault.
        message: The error that the user saw first, or details of the fault.
        difference: Largest difference from the float model, relative to the range.
        seconds: Time of everything.
    """

    call: str
    outcome: str = ""
    fault: str = ""
    message: str = ""
    difference: float = 0.0
    seconds: float = 0.0


def survey(
    item: Item, *, depth: str = "file", max_calls: int | None = None
) -> dict[str, Any]:
    """Returns the results of the calls of an item as plain data.

    Args:
        item: The function or layer.
        depth: "file": up to the verified file. "analysis": only `quantize_model`.
        max_calls: How many calls to try; None: all.
    """
    start = time.perf_counter()
    results, reason = [], ""
    for built in itertools.islice(built_models(item, seed=0), max_calls):
        if isinstance(built, Built):
            results.append(judge(built, depth=depth))
        else:
            reason = str(built)
    return {
        "item": item.key,
        "aliases": list(item.aliases),
        "reason": reason,
        "cases": [dataclasses.asdict(result) for result in results],
        "seconds": round(time.perf_counter() - start, 2),
    }


def faults(result: dict[str, Any]) -> list[str]:
    """Returns the faults of an item, each in a line."""
    return [
        f"{result['item']} [{case['call']}]: {case['fault']}: {case['message']}"
        for case in result["cases"]
        if case["outcome"] == FAULT
    ]


def judge(built: Built, *, depth: str = "file") -> CaseResult:
    """Returns what became of one model."""
    start = time.perf_counter()
    result = CaseResult(built.call.label)
    try:
        with quiet():
            _prove(built, result, depth)
    except FaultError as fault:
        result.outcome, result.fault = FAULT, fault.kind
        result.message = fault.details
    result.seconds = round(time.perf_counter() - start, 2)
    return result


def _prove(built: Built, result: CaseResult, depth: str) -> None:
    """Fills in a result.

    Raises:
        FaultError: If a promise is broken.
    """
    student, refusal = _quantized(built, {})
    rescued = refusal is not None
    if refusal is not None:
        result.message = refusal.reasons[:MAX_MESSAGE]
        student, again = _quantized(built, refusal.overrides)
        if again is not None:
            _check_final(built, again, refusal)
            result.outcome, result.message = NO_FORM, again.reasons[:MAX_MESSAGE]
            return
    if depth == "analysis":
        result.outcome = RESCUED if rescued else ""
        return
    result.difference = round(_compared(built, student), 5)
    in_float = _exported(built, student)
    result.outcome = RESCUED if rescued else FLOAT if in_float else EXACT


def _quantized(built: Built, overrides: dict[str, str]) -> tuple[Any, Refusal | None]:
    """Returns the student, or the refusal.

    Raises:
        FaultError: If the refusal is not one that users are promised.
    """
    try:
        student = tf_lsq.quantize_model(
            built.model, weight_bits=8, activation_bits=8, overrides=overrides
        )
        return student, None
    except Exception as error:
        refusal = read_refusal(error, built.model)
        if isinstance(refusal, str):
            stage = "after the remedy" if overrides else "at quantize_model"
            raise FaultError(f"{refusal} {stage}", _described(error)) from error
        return None, refusal


def _check_final(built: Built, refusal: Refusal, first: Refusal) -> None:
    """Checks that a layer cannot even stay in float, and that the error says so.

    Raises:
        FaultError: If it does not say so, or if it is not true.
    """
    if not refusal.is_final:
        same = set(refusal.layers) <= set(first.layers)
        kind = "the remedy does not help" if same else "one remedy leads to another"
        raise FaultError(kind, refusal.message)
    if has_float_form(built.model, built.inputs):
        raise FaultError("TFLite has a form in float", refusal.message)


def _compared(built: Built, student: Any) -> float:
    """Calibrates a student; returns its difference from the float model.

    Raises:
        FaultError: If calibration fails, or the student is another function.
    """
    try:
        tf_lsq.calibrate(student, _data(built.inputs))
    except Exception as error:
        raise FaultError(
            "accepted, then fails in calibrate", _described(error)
        ) from error
    try:
        largest, outside = difference(built, student)
    except Exception as error:
        raise FaultError(
            "accepted, then fails in the call", _described(error)
        ) from error
    if outside > MAX_OUTSIDE and not built.asks_for_zero:
        text = f"largest difference {largest:.3g} of the range, {outside:.1%} of values"
        raise FaultError("the student differs silently", text)
    return largest


def _exported(built: Built, student: Any) -> bool:
    """Exports and verifies; returns whether layers are in float.

    Raises:
        FaultError: If either fails, or the file differs.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.tflite")
        try:
            report = tflite_export.export_model(student, path, verbose=False)
        except Exception as error:
            raise FaultError(
                "accepted, then fails in export_model", _described(error)
            ) from error
        try:
            found = tflite_export.verify_tflite(
                path, student, _data(built.inputs), verbose=False
            )
        except Exception as error:
            raise FaultError(
                "exported, then fails in verify_tflite", _described(error)
            ) from error
    # Float kernels round differently, which may change a code of their result that is
    # next to a tie; integers computed from it are those of the twin.
    in_float = bool(report.float_layers)
    differences = {
        p.name: p.twin_differences
        for p in found.points
        if p.twin_differences
        > MAX_OUTSIDE * p.num_codes * (in_float and p.kind == "quantize")
    }
    if found.equal_codes != found.weight_codes or differences:
        raise FaultError("the file or its twin differs", differences)
    return in_float


def _data(inputs: list[np.ndarray]) -> Any:
    """Returns inputs as a user passes them."""
    return inputs[0] if len(inputs) == 1 else list(inputs)


def _described(error: BaseException) -> str:
    """Returns type and text of an error, and the last line of ours that it passed."""
    ours = [
        f"{Path(frame.filename).name}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if re.search(r"/(tf_lsq|tflite_export)/", frame.filename)
    ]
    place = f" [{ours[-1]}]" if ours else ""
    return f"{type(error).__name__}{place}: {error}"
