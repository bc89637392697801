"""The bit policy: how many bits each operator gets.

The paper quantizes the inputs and the weights of every matrix multiplication,
the first and the last of them to 8 bits, and does not quantize anything between
them (residual additions, batch norms); here all of that gets 8 bits.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from . import lsq
from .graph import WITHOUT_FLOAT, Graph, Node, make_foreign, takes_as_is
from .layers import QUANTIZED_WEIGHTS, LSQQuantizeConfig
from .pixels import Pixels
from .training import DEFAULT_STEP_CLIP, check_step_clip

FLOAT = "float"
# Bits of kernel and input; bits of each; or "float".
Override = int | tuple[int, int] | str
# One per configuration of the NPU: the number is that of its multipliers.
ETHOS_U_TARGETS = ("ethos-u55-128", "ethos-u65-256", "ethos-u85-256")
TARGETS = ("phone", "edgetpu", "symmetric", "tflm", *ETHOS_U_TARGETS)
# These targets need zero points of 0: an unsigned tensor has 128 integers, 0..127.
SYMMETRIC_TARGETS = ("symmetric",)

# These targets run one example at a time.
FIXED_BATCH_TARGETS = ("edgetpu", "tflm", *ETHOS_U_TARGETS)


@dataclasses.dataclass(frozen=True)
class Options:
    """The validated options of `quantize_model` and `LSQQuantizeScheme`.

    Attributes are documented in `tf_lsq.quantize_model`.
    """

    weight_bits: int = 4
    activation_bits: int = 4
    first_last_bits: int = 8
    per_channel: bool = False
    overrides: Mapping[str, Override] | None = None
    target: str = "phone"
    step_init: str = "mse"
    asymmetric_activations: bool = False
    step_clip: float | None = DEFAULT_STEP_CLIP
    inputs: Pixels | Mapping[str, Pixels | None] | None = None

    def __post_init__(self) -> None:
        """Checks every option."""
        for name in ("weight_bits", "activation_bits", "first_last_bits"):
            num_bits = lsq.check_num_bits(getattr(self, name), name)
            object.__setattr__(self, name, num_bits)
        lsq.check_step_init(self.step_init)
        check_step_clip(self.step_clip, may_be_models=False)
        if self.target not in TARGETS:
            raise ValueError(
                f"`target` must be one of {list(TARGETS)}. "
                f"Received: target={self.target!r}."
            )
        if self.asymmetric_activations and self.target in SYMMETRIC_TARGETS:
            raise ValueError(
                f"The target {self.target!r} needs zero points of 0. Received: "
                "asymmetric_activations=True. Leave it out, or choose another target."
            )
        _check_inputs(self.inputs)
        overrides = {
            pattern: _checked_override(value, f"overrides[{pattern!r}]")
            for pattern, value in (self.overrides or {}).items()
        }
        object.__setattr__(self, "overrides", overrides or None)
        for pattern in overrides:
            re.compile(pattern)


def _check_inputs(inputs: Any) -> None:
    """Refuses what is neither pixels nor a mapping to pixels.

    Raises:
        ValueError: If it is; the names are checked with the model.
    """
    if inputs is None or isinstance(inputs, Pixels):
        return
    entries = inputs.values() if isinstance(inputs, Mapping) else [inputs]
    wrong = [e for e in entries if not (e is None or isinstance(e, Pixels))]
    if wrong:
        raise ValueError(
            "`inputs` must be `tf_lsq.Pixels(mean, std)`, or map names of inputs to "
            f"that, or to None for values that are no bytes. Received: {wrong}."
        )


def _checked_override(value: Any, name: str) -> Override:
    """Returns an override with plain integers.

    Raises:
        ValueError: If it is neither bits, nor a pair of bits, nor "float".
    """
    if isinstance(value, str) and value == FLOAT:
        return FLOAT
    if not isinstance(value, tuple | list):
        return lsq.check_num_bits(value, name)
    if len(value) != 2:
        raise ValueError(
            f"`{name}` must be bits, a pair (weight_bits, activation_bits), or "
            f"{FLOAT!r}. Received: {name}={value!r}."
        )
    weight, activation = (
        lsq.check_num_bits(num_bits, f"{name}[{position}]")
        for position, num_bits in enumerate(value)
    )
    return weight, activation


@dataclasses.dataclass(frozen=True)
class Bits:
    """The bits of one operator.

    Attributes:
        weight: Bits of its weight, None if it has none.
        activation: Bits of its inputs.
        is_float: Whether it stays in float.
        per_channel: One step per output channel.
        step_init: First value of its weight step.
    """

    weight: int | None
    activation: int
    is_float: bool = False
    per_channel: bool = False
    step_init: str = "mse"


IN_FLOAT = Bits(None, lsq.MAX_NUM_BITS, is_float=True)


def assign_bits(
    graph: Graph,
    options: Options,
    configs: Mapping[str, LSQQuantizeConfig | None] | None = None,
) -> dict[Node, Bits]:
    """Returns the bits of every node.

    Args:
        graph: The fused graph of a float model.
        options: Checked options.
        configs: Layers annotated for quantization by name, each with its own
            config or None; layers that are missing stay in float. None: all
            layers are quantized.

    Raises:
        ValueError: If patterns of `overrides` match nothing that they can act
            on, or layers that do not stay in float have no exact integer form; the
            error names them all.
    """
    _check_patterns(graph, options)
    ends = first_and_last(graph)
    bits = {}
    for node in graph.nodes:
        config = (configs or {}).get(node.origin)
        override = _override(node, options)
        if stays_float(node, options, configs):
            bits[node] = IN_FLOAT
        else:
            bits[node] = _bits_of(node, options, node in ends, override, config)
    for node in reversed(graph.nodes):
        if node.kind == "foreign" and node.is_integer and _loses_nothing(node, bits):
            bits[node] = IN_FLOAT
        if node.options.get("of_input") and _read_in_float(node, bits):
            bits[node] = IN_FLOAT
        if node.kind in WITHOUT_FLOAT and bits[node].is_float:
            make_foreign(node)
    graph.check(lambda node: bits[node].is_float)
    _check_integers(graph, bits)
    if options.target in SYMMETRIC_TARGETS:
        _check_symmetric(graph, bits)
    return bits


def stays_float(
    node: Node, options: Options, configs: Mapping[str, Any] | None
) -> bool:
    """Returns whether the user leaves an operator in float.

    Args:
        node: An operator.
        options: Checked options.
        configs: As for `assign_bits`.
    """
    if node.kind == "input" or node.options.get("of_input"):
        return False
    left_out = configs is not None and node.origin not in configs
    return left_out or _override(node, options) == FLOAT


def _read_in_float(node: Node, bits: Mapping[Node, Bits]) -> bool:
    """Returns whether only operators in float read a tensor."""
    return all(bits[reader].is_float for reader in node.consumers)


def _loses_nothing(node: Node, bits: Mapping[Node, Bits]) -> bool:
    """Returns whether integers come from integers, or go only to layers in float.

    Such an operator needs no override to stay as it is.
    """
    read = all(source.is_integer for source in node.inputs)
    return read or (bool(node.consumers) and _read_in_float(node, bits))


def _check_integers(graph: Graph, bits: Mapping[Node, Bits]) -> None:
    """Refuses tensors that one layer reads as integers, and another quantized."""
    problems = []
    for node in graph.nodes:
        as_is = [r for r in node.consumers if takes_as_is(r, node)]
        if node.kind != "foreign" and as_is and len(as_is) < len(node.consumers):
            others = [r.origin for r in node.consumers if r not in as_is]
            problems.append(
                f"`{node.origin}`, which {[r.origin for r in as_is]} read as integers, "
                f"and {others} as values"
            )
    if problems:
        raise ValueError(
            "A tensor must be read either as integers or as values. Give the model a "
            "separate input for each use. Received: " + "; ".join(problems) + "."
        )


def _check_symmetric(graph: Graph, bits: Mapping[Node, Bits]) -> None:
    """Refuses operators for which TFLite prescribes a zero point other than 0."""
    offending = [
        f"`{node.origin}` ({node.kind})"
        for node in graph.nodes
        if node.properties.fixed_step
        and node.properties.range == "positive"
        and not bits[node].is_float
    ]
    if offending:
        raise ValueError(
            "The target 'symmetric' needs zero points of 0. Received layers whose "
            f"output has the zero point -128 in TFLite: {offending}. Let the model "
            "return logits, or leave the layers in float with `overrides`."
        )


def _bits_of(
    node: Node, options: Options, end: bool, override: Any, config: Any
) -> Bits:
    """Returns the bits of a quantized node; the most specific setting wins."""
    if not node.properties.matmul:
        weighted = type(node.layer) in QUANTIZED_WEIGHTS
        return Bits(lsq.MAX_NUM_BITS if weighted else None, lsq.MAX_NUM_BITS)
    per_channel, step_init = options.per_channel, options.step_init
    weight, activation = options.weight_bits, options.activation_bits
    if node.options.get("constant"):
        weight = lsq.MAX_NUM_BITS  # Training cannot adapt it to fewer bits.
    if end:
        weight = activation = options.first_last_bits
    if config is not None:
        weight, activation = config.weight_bits, config.activation_bits
        per_channel, step_init = config.per_channel, config.step_init
    if isinstance(override, tuple | list):
        weight, activation = override
    elif override is not None:
        weight = activation = override
    return Bits(weight, activation, per_channel=per_channel, step_init=step_init)


def first_and_last(graph: Graph) -> set[Node]:
    """Returns the matmuls with no other matmul before them, or none after them.

    Args:
        graph: The fused graph of a model.
    """
    after: set[Node] = set()
    for node in graph.nodes:
        if any(n in after or n.properties.matmul for n in node.inputs):
            after.add(node)
    before: set[Node] = set()
    for node in reversed(graph.nodes):
        if any(n in before or n.properties.matmul for n in node.consumers):
            before.add(node)
    return {
        node
        for node in graph.nodes
        if node.properties.matmul and not (node in after and node in before)
    }


def _names(node: Node) -> list[str]:
    """Returns the names of the user's layers that make up a node.

    A layer of a nested model has the names "model/layer", "layer" and "model".
    """
    paths = [node.origin, *(fused.origin for fused in node.fused)]
    names = [*paths, *(path.split("/")[-1] for path in paths)]
    for path in paths:
        parts = path.split("/")
        names += ["/".join(parts[:end]) for end in range(1, len(parts))]
    return list(dict.fromkeys(names))


def _override(node: Node, options: Options) -> Override | None:
    """Returns the override of a node: the last pattern that matches it."""
    override = None
    for pattern, value in (options.overrides or {}).items():
        if any(re.fullmatch(pattern, name) for name in _names(node)):
            if value == FLOAT or node.properties.matmul:
                override = value
    return override


def _check_patterns(graph: Graph, options: Options) -> None:
    """Refuses patterns that change nothing."""
    problems = []
    for pattern, value in (options.overrides or {}).items():
        nodes = [
            node
            for node in graph.nodes
            if not (node.kind == "input" or node.options.get("of_input"))
            and any(re.fullmatch(pattern, name) for name in _names(node))
        ]
        if not nodes:
            problems.append(f"{pattern!r} matches no layer")
        elif value != FLOAT and not any(n.properties.matmul for n in nodes):
            problems.append(f"{pattern!r} matches no layer with a kernel")
    if problems:
        nodes = [part for node in graph.nodes for part in (node, *node.fused)]
        names = list(dict.fromkeys(node.origin for node in nodes))
        raise ValueError(
            "Every pattern of `overrides` (a regular expression for whole layer "
            f"names) must match a layer. Received: {'; '.join(problems)}. Layers: "
            f"{names}."
        )
