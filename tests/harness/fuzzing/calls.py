"""Plausible calls of a function or layer: hints first, then what its signature asks.

A call is plain data with a function of tensors, so that it can be tried on the tensors
of either Keras.
"""

from __future__ import annotations

import dataclasses
import inspect
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .discovery import Item
from .operands import DOMAINS, IDS, IMAGE, SEQUENCE, VECTOR, VOLUME, Operand

OTHERS = (VECTOR, SEQUENCE, VOLUME)
# Values for arguments that are not tensors, by the name of the parameter.
ARGUMENTS: dict[str, Any] = {
    "axis": -1,
    "axes": -1,
    "block_size": 2,
    "ksize": 2,
    "window_size": 2,
    "pool_size": 2,
    "size": 2,
    "strides": 1,
    "padding": "SAME",
    "pads": 1,
    "cropping": 1,
    "depth": 8,
    "num_classes": 8,
    "num_tokens": 8,
    "num_segments": 3,
    "k": 2,
    "n": 2,
    "num": 8,
    "repeats": 2,
    "shift": 1,
    "decimals": 1,
    "dtype": "float32",
    "clip_value_min": -1.0,
    "clip_value_max": 1.0,
    "min_value": -1.0,
    "max_value": 1.0,
    "x_min": -1.0,
    "x_max": 1.0,
    "clip_norm": 1.0,
    "delta": 0.1,
    "seed": 1,
    "rate": 0.3,
    "stddev": 0.3,
    "factor": 0.2,
    "scale": 0.5,
    "units": 4,
    "filters": 4,
    "kernel_size": 2,
    "pool_sizes": 2,
    "output_size": 2,
    "num_heads": 2,
    "key_dim": 4,
    "head_dim": 4,
    "num_query_heads": 2,
    "num_key_value_heads": 2,
    "input_dim": 8,
    "output_dim": 4,
    "height": 4,
    "width": 4,
    "height_factor": 0.2,
    "width_factor": 0.2,
    "value_range": (0.0, 1.0),
    "groups": 2,
    "num_bins": 8,
    "q": 0.5,
    "perm": None,
}
# Optional arguments that are passed all the same: without an axis, many functions mix
# the examples of a batch.
_ALWAYS = ("axis",)


@dataclasses.dataclass(frozen=True)
class Call:
    """One way to call a function or a layer.

    Attributes:
        label: What distinguishes it from other calls of the same item.
        operands: The tensors that it receives.
        apply: Computes the result: takes the function, or the layer class, and the
            tensors.
        domains: Other values of float operands to try, should results be infinite.
    """

    label: str
    operands: tuple[Operand, ...]
    apply: Callable[..., Any] = dataclasses.field(compare=False)
    domains: tuple[str, ...] = DOMAINS

    def within(self, domain: str) -> Call:
        """Returns the call with other values of its signed operands."""
        operands = tuple(
            op.within(domain) if op.domain == "signed" else op for op in self.operands
        )
        label = self.label if operands == self.operands else f"{self.label}, {domain}"
        return dataclasses.replace(self, label=label, operands=operands)


def generic_calls(item: Item) -> Iterator[list[Call]]:
    """Yields, for each rank, ways to call an item in the order to try them.

    Images come first, then the other ranks in an order that differs between items.
    """
    try:
        parameters = inspect.signature(item.target).parameters.values()
    except (TypeError, ValueError):
        return
    arguments = [p for p in parameters if _is_passed(p)]
    first = zlib.crc32(item.name.encode()) % len(OTHERS)
    make = _layer_ways if item.is_layer else _function_ways
    for operand in (IMAGE, *OTHERS[first:], *OTHERS[:first]):
        yield [
            Call(f"{operand.rank}-D{label}", operands, apply)
            for label, operands, apply in make(operand, arguments)
        ]


def _is_passed(parameter: inspect.Parameter) -> bool:
    """Returns whether a call passes an argument."""
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return False
    return parameter.default is parameter.empty or parameter.name in _ALWAYS


def _filled(
    arguments: list[inspect.Parameter], tensors: Iterable[Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Returns positional and named arguments; those without a value get tensors."""
    rest = iter(tensors)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for parameter in arguments:
        name = parameter.name
        value = ARGUMENTS[name] if name in ARGUMENTS else next(rest)
        if parameter.kind == parameter.POSITIONAL_ONLY:
            args.append(value)
        else:
            kwargs[name] = value
    return [*args, *rest], kwargs


Way = tuple[str, tuple[Operand, ...], Callable[..., Any]]


def _function_ways(
    operand: Operand, arguments: list[inspect.Parameter]
) -> Iterator[Way]:
    """Yields ways to call a function: on tensors, on a list, on flags, on ids."""
    count = sum(p.name not in ARGUMENTS for p in arguments) or 1

    def on_tensors(function: Any, *tensors: Any) -> Any:
        args, kwargs = _filled(arguments, tensors)
        return function(*args, **kwargs)

    def on_list(function: Any, *tensors: Any) -> Any:
        args, kwargs = _filled(arguments, [list(tensors)])
        return function(*args, **kwargs)

    yield "", (operand,) * count, on_tensors
    if count == 1:
        yield " list", (operand, operand), on_list
    yield " flags", (operand.within("flags"),) * count, on_tensors
    yield " ids", (IDS.of(*operand.shape),) * count, on_tensors


def _layer_ways(operand: Operand, arguments: list[inspect.Parameter]) -> Iterator[Way]:
    """Yields ways to call a layer: on a tensor, on a list, on two, on ids."""

    def create(layer_class: Any) -> Any:
        args, kwargs = _filled(arguments, [])
        return layer_class(*args, **kwargs)

    def on_tensors(layer_class: Any, *tensors: Any) -> Any:
        return create(layer_class)(*tensors)

    def on_list(layer_class: Any, *tensors: Any) -> Any:
        return create(layer_class)(list(tensors))

    if any(p.name not in ARGUMENTS for p in arguments):
        return
    yield "", (operand,), on_tensors
    yield " list", (operand, operand), on_list
    yield " two", (operand, operand), on_tensors
    yield " ids", (IDS.of(*operand.shape),), on_tensors
