"""The classifiers by name, and what the images were when they were trained."""

from __future__ import annotations

from .classifiers import SIZE, Spec

# Mean and standard deviation of bytes.
_STANDARD = (0.45 * 255, 0.22 * 255)
_SYMMETRIC = (2.5 / 127, 0)  # A learned grid of such numbers.
_RANGE = (1 / _STANDARD[1], -13)  # The smallest grid that holds them.
_I8 = "int8"

SPECS = {
    "uint8_float32": Spec(),
    "uint8_uint8": Spec(output_type="uint8"),
    "int8_int8": Spec(input_type="int8", output_type="int8"),
    "int8_float32": Spec(input_type="int8"),
    "uint8_int8": Spec(output_type="int8"),
    "float32_float32": Spec(input_type="float32"),
    "uint8_int64": Spec(output_type="int64"),
    "gray": Spec(shape=(1, SIZE, SIZE, 1)),
    "two_channels": Spec(shape=(1, SIZE, SIZE, 2)),
    "four_channels": Spec(shape=(1, SIZE, SIZE, 4)),
    "vector": Spec(shape=(1, 12)),
    "batch_of_2": Spec(shape=(2, SIZE, SIZE, 3)),
    "dynamic_batch": Spec(dynamic=True),
    "two_images": Spec(images=2),
    "two_outputs": Spec(second_output="float32"),
    "mixed_outputs": Spec(second_output="uint8"),
    "three_axes": Spec(output_shape=(1, 1, 5)),
    "four_axes": Spec(output_shape=(1, 1, 1, 5)),
    "map": Spec(classes=10, output_shape=(1, 2, 5)),
    "int4_convolution": Spec(containers=("int4", _I8, _I8, _I8)),
    "int4_depthwise": Spec(containers=(_I8, "int4", _I8, _I8)),
    "int4_pointwise": Spec(containers=(_I8, _I8, "int4", _I8)),
    "int4_dense": Spec(containers=(_I8, _I8, _I8, "int4")),
    "int4_dense_one_scale": Spec(containers=(_I8, _I8, _I8, "int4"), dense_scales=1),
    "int2_dense": Spec(containers=(_I8, _I8, _I8, "int2")),
    "strided_pointwise": Spec(stride=2),
    "learned_step": Spec(grid=_SYMMETRIC, trained=_STANDARD, learned=True),
    "other_symmetric": Spec(grid=_SYMMETRIC, trained=_STANDARD),
    "other_range": Spec(grid=_RANGE, trained=_STANDARD),
    "bytes_as_values": Spec(grid=(1.0, -128), trained=(0.0, 1.0)),
    "newest_version": Spec(newest=True),
}
