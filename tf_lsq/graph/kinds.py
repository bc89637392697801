"""The operators of TFLite's fused graph, and what quantization must know about each."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Kind:
    """What the analysis knows about one TFLite operator.

    Attributes:
        matmul: Multiplies its input by a quantized kernel: the bits of input
            and kernel are chosen.
        fuses_relu: Fuses a ReLU that follows into itself.
        keeps_codes: Passes integer codes on unchanged, so its output has the
            grid of its input.
        keeps_grid: Its output must have the grid of its input, but is computed
            and rounded (average pooling).
        leaves_range: Its output has the step of its input, but can exceed the
            largest integer; clipping follows. Only with `keeps_grid`.
        joins: Its inputs and its output share one grid (concatenation).
        fixed_step: Step of the output that TFLite prescribes, or None.
        wide_step: The same in int16, from an input in int8, or None.
        int16: TFLite also computes it in int16, to within one code.
        symmetric_inputs: Which of its inputs need zero points of 0.
        own_types: Whether it reads and writes every tensor in the type of its own
            grid; others compute in one type.
        narrow_inputs: Which of its inputs stay in int8 where it computes in int16.
        range: "inputs": not negative if no input is; "positive": never negative;
            "signed": can be negative.
    """

    matmul: bool = False
    fuses_relu: bool = False
    keeps_codes: bool = False
    keeps_grid: bool = False
    leaves_range: bool = False
    joins: bool = False
    fixed_step: float | None = None
    wide_step: float | None = None
    int16: bool = False
    symmetric_inputs: tuple[int, ...] = ()
    own_types: bool = False
    narrow_inputs: tuple[int, ...] = ()
    range: str = "inputs"


_MATMUL = Kind(matmul=True, fuses_relu=True, int16=True, range="signed")

# `unary` has the kinds of functions of one tensor.
BASIC_KINDS = {
    "input": Kind(int16=True),
    "conv": _MATMUL,
    "depthwise": _MATMUL,
    "transposed_conv": _MATMUL,
    "dense": _MATMUL,
    "affine": Kind(fuses_relu=True, int16=True, range="signed"),
    "scale": Kind(keeps_codes=True, int16=True),
    "add_constant": Kind(fuses_relu=True, int16=True, range="signed"),
    "multiply_constant": Kind(fuses_relu=True, int16=True, range="signed"),
    "prelu": Kind(int16=True, range="signed"),
    "add": Kind(fuses_relu=True, int16=True),
    "subtract": Kind(fuses_relu=True, int16=True, range="signed"),
    "multiply": Kind(fuses_relu=True, int16=True),
    "matmul": Kind(int16=True, symmetric_inputs=(1,), narrow_inputs=(1,)),
    "embedding": Kind(int16=True, narrow_inputs=(0,), range="signed"),
    "maximum": Kind(joins=True, int16=True),
    "minimum": Kind(joins=True, int16=True),
    "concat": Kind(joins=True, int16=True),
    "relu": Kind(int16=True, range="positive"),
    "clip": Kind(int16=True),
    "table": Kind(range="signed"),  # Or as its options say.
    "softmax": Kind(
        fixed_step=1 / 256, wide_step=2**-15, narrow_inputs=(0,), range="positive"
    ),
    "mask": Kind(keeps_codes=True, range="signed"),
    "sigmoid": Kind(fixed_step=1 / 256, range="positive"),
    "tanh": Kind(fixed_step=1 / 128, range="signed"),
    "hard_sigmoid": Kind(fixed_step=1 / 255, range="positive"),
    "mean": Kind(int16=True),
    "sum": Kind(int16=True),
    "average_pool": Kind(keeps_grid=True, int16=True),
    "resize_bilinear": Kind(keeps_grid=True),
    "resize_nearest": Kind(keeps_codes=True, int16=True),
    "max_pool": Kind(keeps_codes=True, int16=True),
    "reduce_max": Kind(keeps_codes=True, int16=True),
    "arg_max": Kind(),
    "reduce_min": Kind(keeps_codes=True, int16=True),
    "reshape": Kind(keeps_codes=True, int16=True),
    "transpose": Kind(keeps_codes=True, int16=True),
    "slice": Kind(keeps_codes=True, int16=True),
    "pad": Kind(keeps_codes=True, int16=True),
    "pad_mirror": Kind(keeps_codes=True, int16=True),
    "pad_constant": Kind(keeps_grid=True, int16=True),
    "gather": Kind(keeps_codes=True, int16=True),
    "depth_to_space": Kind(keeps_codes=True),
    "space_to_depth": Kind(keeps_codes=True),
    "zeros": Kind(keeps_codes=True, int16=True, range="positive"),
    "identity": Kind(keeps_codes=True, int16=True),
    # Several operators, see `normalizing`.
    "normalize": Kind(int16=True, range="signed"),
    # The sum of the squares of int8 codes, which needs int32, as codes of 16 bits.
    "sum_of_squares": Kind(
        int16=True, symmetric_inputs=(0,), own_types=True, range="positive"
    ),
    # A table whose places are codes of 16 bits, which cannot be negative.
    "lookup": Kind(int16=True, own_types=True, range="positive"),
    "foreign": Kind(int16=True, range="signed"),
    "point": Kind(keeps_codes=True, int16=True),
}
