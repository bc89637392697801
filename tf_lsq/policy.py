"""The bit policy: how many bits each operator gets.

The paper quantizes the inputs and the weights of every matrix multiplication,
the first and the last of them to 8 bits, and does not quantize anything between
them (residual additions, batch norms); here all of that gets 8 bits.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from . import lsq
from .graph import WITHOUT_FLOAT, Graph, Node, make_foreign, takes_as_is
from .layers import QUANTIZED_WEIGHTS, LSQQuantizeConfig
from .norm_forms import Choice, check_choice, expand_norms
from .overrides import (
    FLOAT,
    Override,
    check_overrides,
    checked_override,
    chosen_overrides,
)
from .pixels import Pixels
from .training import DEFAULT_STEP_CLIP, check_step_clip

# One per configuration of the NPU: the number is that of its multipliers.
ETHOS_U_TARGETS = ("ethos-u55-128", "ethos-u65-256", "ethos-u85-256")
TARGETS = ("phone", "edgetpu", "symmetric", "tflm", *ETHOS_U_TARGETS)
# These targets need zero points of 0: an unsigned tensor has 128 integers, 0..127.
SYMMETRIC_TARGETS = ("symmetric",)

# These targets run one example at a time.
FIXED_BATCH_TARGETS = ("edgetpu", "tflm", *ETHOS_U_TARGETS)

# Targets without int16 activations.
INT8_TARGETS = ("edgetpu",)
# Kinds that LiteRT computes in int16, and TFLite Micro does not.
_INT8_IN_MICRO = ("gather", "pad_mirror", "reduce_max", "reduce_min")
# Probabilities of more values than this have 16 bits where matrices are multiplied by
# them: most are few codes of 1/256, see `docs/attention.md`.
MOST_IN_INT8 = 32
_MICRO_TARGETS = ("tflm", *ETHOS_U_TARGETS)
_MOST_TERMS = 2**16 - 1  # Of a sum of 16-bit integers in 32 bits.


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
    norm_form: Choice = None

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
        check_choice(self.norm_form)
        overrides = {
            pattern: checked_override(value, f"overrides[{pattern!r}]")
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


@dataclasses.dataclass(frozen=True)
class Bits:
    """The bits of one operator.

    Attributes:
        weight: Bits of its weight, None if it has none.
        activation: Bits of its inputs.
        output: Bits of its output that the user chose; None: what its readers need.
        most: Most bits that its inputs and its output may have.
        is_float: Whether it stays in float.
        per_channel: One step per output channel.
        step_init: First value of its weight step.
    """

    weight: int | None
    activation: int
    output: int | None = None
    most: int = lsq.MAX_NUM_BITS
    is_float: bool = False
    per_channel: bool = False
    step_init: str = "mse"


IN_FLOAT = Bits(None, lsq.MAX_NUM_BITS, most=lsq.MAX_ACTIVATION_BITS, is_float=True)


def assign_bits(
    graph: Graph,
    options: Options,
    configs: Mapping[str, LSQQuantizeConfig | None] | None = None,
) -> dict[Node, Bits]:
    """Returns the bits of every node.

    Args:
        graph: The fused graph of a float model; normalizations become the operators
            of their forms.
        options: Checked options.
        configs: Layers annotated for quantization by name, each with its own
            config or None; layers that are missing stay in float. None: all
            layers are quantized.

    Raises:
        ValueError: If patterns of `overrides` match nothing that they can act
            on, or layers that do not stay in float have no exact integer form; the
            error names them all.
    """
    check_overrides(graph, options.overrides)
    chosen, ends = chosen_overrides(graph, options.overrides), first_and_last(graph)
    expand_norms(
        graph,
        options.target,
        options.norm_form,
        lambda node: stays_float(node, chosen, configs),
    )
    for node, value in chosen.items():
        if isinstance(value, int) and node.properties.keeps_codes:
            # A normalization of groups ends with a reshape.
            node.inputs[0].options["bits"] = value
    bits = {}
    for node in graph.nodes:
        config = (configs or {}).get(node.origin)
        override = chosen.get(node)
        if stays_float(node, chosen, configs):
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
    _check_int16(graph, bits, options.target)
    if options.target in SYMMETRIC_TARGETS:
        _check_symmetric(graph, bits)
    return bits


def stays_float(
    node: Node, chosen: Mapping[Node, Override], configs: Mapping[str, Any] | None
) -> bool:
    """Returns whether the user leaves an operator in float.

    Args:
        node: An operator.
        chosen: The overrides of the graph, from `chosen_overrides`.
        configs: As for `assign_bits`.
    """
    if node.kind == "input" or node.options.get("of_input"):
        return False
    left_out = configs is not None and node.origin not in configs
    return left_out or chosen.get(node) == FLOAT


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
    """Refuses operators whose zero point is another than 0: see `masks`, or TFLite."""
    offending = [
        f"`{node.origin}` ({node.kind})"
        for node in graph.nodes
        if not bits[node].is_float and _has_zero_point(node, bits[node])
    ]
    if offending:
        raise ValueError(
            "The target 'symmetric' needs zero points of 0. Received layers whose "
            f"output has another zero point in TFLite: {offending}. Let the model "
            "return logits, or leave the layers in float with `overrides`."
        )


def _has_zero_point(node: Node, bits: Bits) -> bool:
    """Returns whether the zero point of an output is another than 0 on any target."""
    in_int8 = bits.output != lsq.MAX_ACTIVATION_BITS
    prescribed = node.properties.fixed_step and node.properties.range == "positive"
    return node.kind == "mask" or bool(prescribed and in_int8)


def _check_int16(graph: Graph, bits: Mapping[Node, Bits], target: str) -> None:
    """Refuses more than 8 bits where the target computes only in int8."""
    offending = [
        f"`{node.origin}` ({node.kind})"
        for node in graph.nodes
        if bits[node].activation > bits[node].most
        or (bits[node].output or 0) > _most_output_bits(node, bits[node], target)
    ]
    if offending:
        raise ValueError(
            f"Layers with tensors of more than {lsq.MAX_NUM_BITS} bits must be "
            f"computed in int16 on the target {target!r}. Received layers that are "
            f"not: {offending}. Give them at most {lsq.MAX_NUM_BITS} bits."
        )


def _most_bits(node: Node, target: str) -> int:
    """Returns the most bits that tensors of an operator may have on a target."""
    lacking = _INT8_IN_MICRO if target in _MICRO_TARGETS else ()
    in_int8 = target in INT8_TARGETS or node.kind in lacking
    if node.properties.int16 and not in_int8 and _sum_fits(node):
        return lsq.MAX_ACTIVATION_BITS
    return lsq.MAX_NUM_BITS


def _most_output_bits(node: Node, bits: Bits, target: str) -> int:
    """Returns the most bits that the output of an operator may have on a target."""
    if node.properties.wide_step is None:
        return bits.most
    # The kernel of TFLite Micro has another zero point in int16.
    narrow = target in (*INT8_TARGETS, *_MICRO_TARGETS)
    return lsq.MAX_NUM_BITS if narrow else lsq.MAX_ACTIVATION_BITS


def _output_bits(node: Node, target: str, most: int) -> int | None:
    """Returns the bits of an output for which the user chose none.

    Returns:
        16 for probabilities of many values, by which matrices are multiplied; None:
        what its readers need.
    """
    if node.properties.wide_step is None or not any(map(_multiplies, node.consumers)):
        return None
    many = (node.shape[-1] or 0) > MOST_IN_INT8 or target in SYMMETRIC_TARGETS
    wide = _most_output_bits(node, Bits(None, most, most=most), target)
    return wide if many and wide > most else None


def _multiplies(node: Node) -> bool:
    """Returns whether an operator, or a reader of the same codes, multiplies them."""
    moves = node.properties.keeps_codes and any(map(_multiplies, node.consumers))
    return node.kind == "matmul" or moves


def _sum_fits(node: Node) -> bool:
    """Returns whether the sum of a reduction fits TFLite's int32 in int16."""
    if node.kind not in ("sum", "mean"):
        return True
    shape = node.inputs[0].shape
    return math.prod(shape[axis] or 1 for axis in node.options["axes"]) <= _MOST_TERMS


def _bits_of(
    node: Node, options: Options, end: bool, override: Any, config: Any
) -> Bits:
    """Returns the bits of a quantized node; the most specific setting wins."""
    most = _most_bits(node, options.target)
    if not node.properties.matmul:
        weighted = type(node.layer) in QUANTIZED_WEIGHTS
        weight = lsq.MAX_NUM_BITS if weighted else None
        output = node.options.get("bits") if override is None else override
        if output is None:
            output = _output_bits(node, options.target, most)
        return Bits(weight, lsq.MAX_NUM_BITS, output=output, most=most)
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
    return Bits(
        weight,
        activation,
        most=most,
        per_channel=per_channel,
        step_init=step_init,
    )


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
