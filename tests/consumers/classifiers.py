"""Image classifiers built operator by operator, each with what one rule looks at."""

from __future__ import annotations

import dataclasses
import json

import numpy as np

from tflite_export.file import (
    CONTAINERS,
    TensorQuantization,
    TFLiteGraph,
    TFLiteOp,
    TFLiteTensor,
    metadata,
    tensor_type,
)

SIZE, CHANNELS = 8, 8
Grid = tuple[float, int]  # Scale and zero point, in int8.
BYTES: Grid = (1 / 255, -128)  # Of byte / 255.
_INNER: Grid = (0.02, -128)
_LOGITS: Grid = (0.05, 0)
_SCORES: Grid = (1 / 256, -128)  # TFLite prescribes it for SOFTMAX.
_CENTERED: Grid = (1 / 127, 0)  # Of numbers minus their mean.
_SQUARES: Grid = (8 / 2**15, 0)  # Of sums of squares.
_UNKNOWN_VERSION = 99


@dataclasses.dataclass(frozen=True)
class Spec:
    """What is particular about a classifier.

    Attributes:
        input_type: "int8", "uint8" or "float32".
        output_type: The same, "int64" for the number of the class, or "sorted" for
            float32 scores from the largest to the smallest.
        grid: Grid of the input.
        shape: Shape of the input.
        dynamic: Whether the batch size may change.
        containers: Containers of the kernels: of the convolution, the depthwise one,
            the 1x1 convolution and the dense layer.
        dense_scales: How many scales the dense kernel has.
        stride: Stride of the 1x1 convolution.
        groups: Groups of the 1x1 convolution.
        depthwise: Height and width, and multiplier, of the depthwise convolution.
        classes: How many there are.
        output_shape: Shape of the output; (): batch and classes.
        second_output: Type of a second output; "": there is none.
        images: How many images there are, 1 or 2.
        number: Type of another input, that nothing uses; "": there is none.
        trained: Mean and standard deviation of bytes by which the model was trained.
        says: What the file says about its input: its step was "learned", its codes are
            "pixels", or nothing.
        zero_point: Zero point of the dense kernel.
        newest: Whether an operator has a version that no release knows.
        flat: Whether the dense layer gets a vector, not an image.
        front: Method that adds operators in front of the first convolution, which
            leave the shape of the image as it is; "": none.
    """

    input_type: str = "uint8"
    output_type: str = "float32"
    grid: Grid = BYTES
    shape: tuple[int, ...] = (1, SIZE, SIZE, 3)
    dynamic: bool = False
    containers: tuple[str, str, str, str] = ("int8", "int8", "int8", "int8")
    dense_scales: int = 5
    stride: int = 1
    groups: int = 1
    depthwise: tuple[int, int] = (3, 1)
    classes: int = 5
    output_shape: tuple[int, ...] = ()
    second_output: str = ""
    images: int = 1
    number: str = ""
    trained: tuple[float, float] = (0.0, 255.0)
    says: str = ""
    zero_point: int = 0
    newest: bool = False
    flat: bool = True
    front: str = ""


def build(spec: Spec) -> TFLiteGraph:
    """Returns the graph of a classifier; the same one for the same spec.

    Args:
        spec: What is particular about it.
    """
    return _Builder(spec).graph


class _Builder:
    """Adds tensors and operators to `graph`."""

    def __init__(self, spec: Spec) -> None:
        self._spec, self._rng = spec, np.random.default_rng(0)
        self.graph = TFLiteGraph({}, [], {}, {})
        names = ["image", "other"][: spec.images]
        sources = [self._input(name) for name in names]
        if spec.images > 1:
            sources = [self._op("ADD", sources, "sum", spec.shape, spec.grid)]
        if spec.number:
            self.graph.tensors["number"] = TFLiteTensor("number", (1,), spec.number)
            self.graph.inputs["number"] = "number"
        [x, *_] = sources
        if spec.front:
            x = getattr(self, spec.front)(x)
        scores = self._layers(x)
        self._output(scores, "scores", spec.output_type)
        if spec.second_output:
            self._output(scores, "second", spec.second_output)
        if spec.newest:
            self.graph.ops[-1].version = _UNKNOWN_VERSION
        if spec.says:
            self.graph.metadata |= _described(spec)

    def _layers(self, x: str) -> str:
        """Adds all layers; returns the output of the last one."""
        spec, batch = self._spec, self._spec.shape[0]
        if len(spec.shape) == 4:
            window, multiplier = spec.depthwise
            last, wide = 4 // spec.stride, CHANNELS * multiplier
            shape, kernel = (batch, 4, 4, CHANNELS), (CHANNELS, 3, 3, spec.shape[3])
            x = self._kernel("CONV_2D", x, shape, kernel, 2)
            shape, kernel = (batch, 4, 4, wide), (1, window, window, wide)
            x = self._kernel("DEPTHWISE_CONV_2D", x, shape, kernel, 1)
            shape = (batch, last, last, CHANNELS)
            kernel = (CHANNELS, 1, 1, wide // spec.groups)
            x = self._kernel("CONV_2D", x, shape, kernel, spec.stride)
        features = int(np.prod(self.graph.tensors[x].shape[1:]))
        if spec.flat:
            shape = (batch, features)
            grid = _INNER if len(spec.shape) == 4 else spec.grid
            x = self._reshape(x, "flat", shape, grid)
        x = self._kernel(
            "FULLY_CONNECTED", x, (batch, spec.classes), (spec.classes, features), None
        )
        x = self._op(
            "SOFTMAX", [x], "softmax", (batch, spec.classes), _SCORES, beta=1.0
        )
        if not spec.output_shape:
            return x
        return self._reshape(x, "reshape", spec.output_shape, _SCORES)

    # --- In front of the first convolution ---------------------------------------

    def five_axes(self, x: str) -> str:
        """Adds an axis and removes it."""
        shape, grid = self._spec.shape, self._spec.grid
        x = self._reshape(x, "five_axes", (*shape, 1), grid)
        return self._reshape(x, "four_axes", shape, grid)

    def padded_vector(self, x: str) -> str:
        """Pads all numbers of the image, as a vector, by none."""
        shape, grid = self._spec.shape, self._spec.grid
        vector = (1, int(np.prod(shape)))
        x = self._reshape(x, "vector", vector, grid)
        paddings = self._constant("paddings", np.zeros((2, 2), np.int32))
        x = self._op("PAD", [x, paddings], "pad", vector, grid)
        return self._reshape(x, "four_axes", shape, grid)

    def symmetric_padding(self, x: str) -> str:
        """Pads the image by none of its own pixels, border included."""
        paddings = self._constant("paddings", np.zeros((4, 2), np.int32))
        shape, grid = self._spec.shape, self._spec.grid
        return self._op(
            "MIRROR_PAD", [x, paddings], "pad", shape, grid, mode="SYMMETRIC"
        )

    def reversed_slice(self, x: str) -> str:
        """Turns the image upside down."""
        bounds = {"begin": (0,) * 4, "end": (0,) * 4, "strides": (1, -1, 1, 1)}
        sources = [self._constant(k, np.array(v, np.int32)) for k, v in bounds.items()]
        masks = {"begin_mask": 15, "end_mask": 15}  # All of every axis.
        shape, grid = self._spec.shape, self._spec.grid
        return self._op("STRIDED_SLICE", [x, *sources], "slice", shape, grid, **masks)

    def dropped_axis(self, x: str) -> str:
        """Drops the axis of the batch, and adds it again."""
        shape, grid = self._spec.shape, self._spec.grid
        bounds = {"begin": (0,) * 4, "end": shape, "strides": (1,) * 4}
        sources = [self._constant(k, np.array(v, np.int32)) for k, v in bounds.items()]
        inputs, masks = [x, *sources], {"shrink_axis_mask": 1}
        x = self._op("STRIDED_SLICE", inputs, "slice", shape[1:], grid, **masks)
        return self._reshape(x, "four_axes", shape, grid)

    def in_int16(self, x: str) -> str:
        """Converts codes to int16 and back, in the versions that converters write."""
        shape, grid = self._spec.shape, self._spec.grid
        wide = "int16"
        self._end(wide, shape, (grid[0], 0), wide)
        self.graph.ops.append(TFLiteOp("QUANTIZE", [x], [wide], version=1))
        x = self._op("QUANTIZE", [wide], "narrow", shape, grid)
        self.graph.ops[-1].version = 1
        return x

    def sum_in_int16(self, x: str) -> str:
        """Adds the image to itself in int16."""
        shape, grid = self._spec.shape, (2 * self._spec.grid[0], 0)
        wide = self._wide(x)
        x = self._typed("ADD", [wide, wide], "sum_in_int16", shape, grid, "int16")
        return self._op("QUANTIZE", [x], "narrow", shape, self._spec.grid)

    def dense_in_int16(self, x: str) -> str:
        """Multiplies all numbers by a matrix in int16."""
        shape, size = self._spec.shape, int(np.prod(self._spec.shape))
        wide = self._wide(self._reshape(x, "vector", (1, size), self._spec.grid))
        codes = self._rng.integers(-127, 128, (size, size)).astype(np.int8)
        scale = np.full(size, 0.5 / 127 / size**0.5, np.float32)
        weight = self._constant("wide/weight", codes)
        self.graph.tensors[weight].quantization = TensorQuantization(scale, 0, 0)
        bias = self._constant("wide/bias", np.zeros(size, np.int64))
        unit = TensorQuantization(scale * np.float32(self._spec.grid[0]), 0)
        self.graph.tensors[bias].quantization = unit
        inputs = [wide, weight, bias]
        x = self._typed(
            "FULLY_CONNECTED", inputs, "dense", (1, size), (1 / 2**14, 0), "int16"
        )
        x = self._op("QUANTIZE", [x], "narrow", (1, size), _LOGITS)
        return self._reshape(x, "four_axes", shape, _LOGITS)

    def narrow_attention(self, x: str) -> str:
        """Mixes rows of the image by their products, with probabilities in int8."""
        source, (tokens, scores) = x, self._scores_of_rows(x)
        shape = self.graph.tensors[scores].shape
        x = self._op("SOFTMAX", [scores], "shares", shape, _SCORES, beta=0.125)
        shape, grid = self.graph.tensors[tokens].shape, self._spec.grid
        mixed = self._op("BATCH_MATMUL", [x, tokens], "mixed", shape, grid)
        return self._added(source, mixed)

    def wide_attention(self, x: str) -> str:
        """Mixes rows of the image by their products, with probabilities in int16."""
        source, (tokens, scores) = x, self._scores_of_rows(x)
        grid, wide = (1 / 2**15, 0), "int16"
        shape = self.graph.tensors[scores].shape
        x = self._typed("SOFTMAX", [scores], "shares", shape, grid, wide, beta=0.125)
        shape, inputs = self.graph.tensors[tokens].shape, [x, tokens]
        x = self._typed("BATCH_MATMUL", inputs, "mixed", shape, grid, wide)
        mixed = self._op("QUANTIZE", [x], "narrow", shape, self._spec.grid)
        return self._added(source, mixed)

    def broadcast_product(self, x: str) -> str:
        """Multiplies every row of the image by one matrix."""
        shape, grid = self._spec.shape, self._spec.grid
        codes = self._rng.integers(1, 128, (1, 1, shape[-1], shape[-1]))
        weight = self._constant("channels", codes.astype(np.int8))
        self.graph.tensors[weight].quantization = _grid((1 / 127 / shape[-1], 0))
        return self._op("BATCH_MATMUL", [x, weight], "product", shape, grid)

    def norm_in_int8(self, x: str) -> str:
        """Normalizes rows of the image, with a sum of squares in int32."""
        x, sums = self._rows(x), (1, SIZE, 1)
        shape = self.graph.tensors[x].shape
        mean = self._op("MEAN", [x, self._last_axis()], "mean", sums, self._spec.grid)
        self.graph.ops[-1].options["keep_dims"] = True
        x = self._op("SUB", [x, mean], "centered", shape, _CENTERED)
        rows = self._reshape(x, "matrices", (1, SIZE, 1, shape[-1]), _CENTERED)
        exact, wide = float(np.float32(_CENTERED[0]) ** 2), (1, SIZE, 1, 1)
        inputs, codes = [rows, rows], {"adj_x": False, "adj_y": True}
        self._typed("BATCH_MATMUL", inputs, "sums", wide, (exact, 0), "int32", **codes)
        self._typed("QUANTIZE", ["sums"], "codes", wide, _SQUARES, "int16")
        place = self._reshape("codes", "place", sums, _SQUARES)
        self.graph.tensors[place].dtype = "int16"
        factor = self._looked_up(place, (1 / 16, 0), "int8")
        x = self._op("MUL", [x, factor], "normalized", shape, _LOGITS)
        return self._reshape(x, "four_axes", self._spec.shape, _LOGITS)

    def norm_in_int16(self, x: str) -> str:
        """Normalizes rows of the image in int16."""
        rows, sums, wide = self._rows(x), (1, SIZE, 1), "int16"
        shape, fine = self.graph.tensors[rows].shape, (1 / 2**15, 0)
        x = self._wide(rows)
        axis, keep = self._last_axis(), {"keep_dims": True}
        total = (shape[-1] / 2**15, 0)
        self._typed("SUM", [x, axis], "sum", sums, total, wide, **keep)
        share = self._constant("share", np.array([2**14], np.int16))
        self.graph.tensors[share].quantization = _grid((1 / shape[-1] / 2**14, 0))
        self._typed("MUL", ["sum", share], "mean", sums, fine, wide)
        x = self._typed("SUB", [x, "mean"], "centered", shape, fine, wide)
        self._typed("MUL", [x, x], "squares", shape, fine, wide)
        self._typed("SUM", ["squares", axis], "place", sums, _SQUARES, wide, **keep)
        factor = self._looked_up("place", (16 / 2**15, 0), wide)
        self._typed("MUL", [x, factor], "normalized", shape, (8 / 2**15, 0), wide)
        x = self._op("QUANTIZE", ["normalized"], "narrow", shape, _LOGITS)
        return self._reshape(x, "four_axes", self._spec.shape, _LOGITS)

    def table(self, x: str) -> str:
        """Looks up the root of every number."""
        shape, grid = self._spec.shape, self._spec.grid
        values = np.sqrt(np.arange(256) / 255)
        table = self._constant("table", np.rint(values * 255 - 128).astype(np.int8))
        self.graph.tensors[table].quantization = _grid(grid)
        first = self._constant("first", np.array([128], np.int32))
        types = {"in_data_type": tensor_type("int8")}
        types["out_data_type"] = tensor_type("int32")
        self._typed("CAST", [x], "code", shape, None, "int32", **types)
        self._typed("ADD", ["code", first], "place", shape, None, "int32")
        return self._op("GATHER", [table, "place"], "root", shape, grid, axis=0)

    def gelu(self, x: str) -> str:
        """Applies a GELU to every number."""
        shape, grid = self._spec.shape, self._spec.grid
        return self._op("GELU", [x], "gelu", shape, grid, approximate=False)

    def exp(self, x: str) -> str:
        """Raises e to every number."""
        return self._op("EXP", [x], "exp", self._spec.shape, _LOGITS)

    def log(self, x: str) -> str:
        """Takes the logarithm of every number."""
        return self._op("LOG", [x], "log", self._spec.shape, _LOGITS)

    def split(self, x: str) -> str:
        """Takes the channels apart, and joins them."""
        shape, grid = self._spec.shape, self._spec.grid
        names = [f"channel_{number}" for number in range(shape[-1])]
        for name in names:
            self._end(name, (*shape[:-1], 1), grid, "int8")
        axis = self._constant("split/axis", np.array(3, np.int32))
        self.graph.ops.append(
            TFLiteOp("SPLIT", [axis, x], names, {"num_splits": len(names)})
        )
        return self._op("CONCATENATION", names, "joined", shape, grid, axis=3)

    def joined_axes(self, x: str) -> str:
        """Multiplies each row of the image by a matrix, in a dense layer of rows."""
        shape, grid = self._spec.shape, self._spec.grid
        rows = (shape[1], shape[2] * shape[3])
        x = self._reshape(x, "rows", (1, *rows), grid)
        x = self._kernel("FULLY_CONNECTED", x, rows, (rows[1], rows[1]), None)
        return self._reshape(x, "four_axes", shape, _LOGITS)

    def joined_pixels(self, x: str) -> str:
        """Multiplies the channels by a matrix, in a dense layer of all pixels."""
        shape, channels = self._spec.shape, self._spec.shape[-1]
        rows = (int(np.prod(shape[:-1])), channels)
        x = self._kernel("FULLY_CONNECTED", x, rows, (channels, channels), None)
        return self._reshape(x, "four_axes", shape, _LOGITS)

    def transposed_relu(self, x: str) -> str:
        """Multiplies the channels by a matrix, and clips."""
        shape, channels = self._spec.shape, self._spec.shape[-1]
        codes = self._rng.integers(-127, 128, (channels, 1, 1, channels))
        scale = np.full(channels, 0.5 / 127, np.float32)
        weight = self._constant("transposed/weight", codes.astype(np.int8))
        self.graph.tensors[weight].quantization = TensorQuantization(scale, 0, 0)
        bias = self._constant("transposed/bias", np.zeros(channels, np.int32))
        unit = TensorQuantization(scale * np.float32(self._spec.grid[0]), 0)
        self.graph.tensors[bias].quantization = unit
        sizes = self._constant("sizes", np.array(shape, np.int32))
        options = {"stride_h": 1, "stride_w": 1, "padding": "VALID"}
        return self._op(
            "TRANSPOSE_CONV",
            [sizes, weight, x, bias],
            "transposed",
            shape,
            self._spec.grid,
            fused_activation_function="RELU",
            **options,
        )

    def _rows(self, x: str) -> str:
        """Makes a vector of each row of the image."""
        _, height, width, channels = self._spec.shape
        return self._reshape(x, "rows", (1, height, width * channels), self._spec.grid)

    def _scores_of_rows(self, x: str) -> tuple[str, str]:
        """Returns the rows of the image, symmetric, and the products of all pairs."""
        x = self._rows(x)
        shape = self.graph.tensors[x].shape
        x = self._op("QUANTIZE", [x], "tokens", shape, (1 / 127, 0))
        grid, options = (shape[-1] / 127, 0), {"adj_x": False, "adj_y": True}
        pairs = (1, shape[1], shape[1])
        return x, self._op("BATCH_MATMUL", [x, x], "products", pairs, grid, **options)

    def _added(self, x: str, mixed: str) -> str:
        """Adds an eighth of the rows to the image: their rounding hardly matters."""
        shape, (scale, zero_point) = self._spec.shape, self._spec.grid
        mixed = self._reshape(mixed, "four_axes", shape, self._spec.grid)
        eighth = self._constant("eighth", np.array([64], np.int8))
        self.graph.tensors[eighth].quantization = _grid((1 / 512, 0))
        part = (scale / 8, zero_point)
        self._op("MUL", [mixed, eighth], "part", shape, part)
        return self._op("ADD", [x, "part"], "added", shape, (1.125 * scale, zero_point))

    def _last_axis(self) -> str:
        """Adds the axis of sums of rows."""
        return self._constant("last_axis", np.array([2], np.int32))

    def _looked_up(self, place: str, grid: Grid, dtype: str) -> str:
        """Looks up the reciprocal root of every square."""
        squares = np.arange(2**15) * _SQUARES[0] + 1e-3
        limit = 2**7 - 1 if dtype == "int8" else 2**15 - 1
        codes = np.minimum(np.rint(squares**-0.5 / grid[0]), limit).astype(dtype)
        table = self._constant("roots", codes)
        self.graph.tensors[table].quantization = _grid(grid)
        shape = self.graph.tensors[place].shape
        return self._typed(
            "GATHER", [table, place], "factor", shape, grid, dtype, axis=0
        )

    def _wide(self, x: str) -> str:
        """Converts codes to int16."""
        source = self.graph.tensors[x]
        grid = float(source.quantization.scale[0]), 0
        return self._typed("QUANTIZE", [x], "wide", source.shape, grid, "int16")

    # --- Ends ----------------------------------------------------------------

    def _input(self, name: str) -> str:
        """Adds an input; returns its int8 form."""
        spec = self._spec
        outer = self._end(name, spec.shape, spec.grid, spec.input_type)
        self.graph.inputs[name] = outer
        if spec.input_type == "int8":
            return outer
        return self._op("QUANTIZE", [outer], f"{name}/int8", spec.shape, spec.grid)

    def _output(self, inner: str, name: str, dtype: str) -> None:
        """Adds an output."""
        source = self.graph.tensors[inner]
        if dtype == "int8":
            self.graph.outputs[name] = inner
            return
        if dtype == "int64":
            outer = TFLiteTensor(name, source.shape[:1], dtype)
            outer.dynamic_batch = source.dynamic_batch
            self.graph.tensors[name] = outer
            axis = self._constant("axis", np.array(-1, np.int32))
            self.graph.ops.append(TFLiteOp("ARG_MAX", [inner, axis], [name]))
            self.graph.ops[-1].options["output_type"] = 4  # INT64 in the schema.
        elif dtype == "sorted":
            self._end("unsorted", source.shape, _SCORES, "float32")
            self.graph.ops.append(TFLiteOp("DEQUANTIZE", [inner], ["unsorted"]))
            count = self._constant("count", np.array(source.shape[-1], np.int32))
            self._end(name, source.shape, _SCORES, "float32")
            order = TFLiteTensor("order", source.shape, "int32")
            order.dynamic_batch = source.dynamic_batch
            self.graph.tensors[order.name] = order
            self.graph.ops.append(
                TFLiteOp(
                    "TOPK_V2",
                    ["unsorted", count],
                    [name, order.name],
                    version=1,
                    table="TopKV2Options",
                )
            )
            self.graph.min_runtime = "1.7.0"
        else:
            self._end(name, source.shape, _SCORES, dtype)
            code = "DEQUANTIZE" if dtype == "float32" else "QUANTIZE"
            self.graph.ops.append(TFLiteOp(code, [inner], [name]))
        self.graph.outputs[name] = name

    def _end(self, name: str, shape: tuple[int, ...], grid: Grid, dtype: str) -> str:
        """Adds the tensor of an end."""
        moved = grid[0], grid[1] + (128 if dtype == "uint8" else 0)
        tensor = TFLiteTensor(name, shape, dtype, None, None, self._spec.dynamic)
        if dtype != "float32":
            tensor.quantization = _grid(moved)
        self.graph.tensors[name] = tensor
        return name

    # --- Operators -------------------------------------------------------------

    def _op(
        self,
        code: str,
        inputs: list[str],
        output: str,
        shape: tuple[int, ...],
        grid: Grid,
        **options: object,
    ) -> str:
        """Adds an operator with an int8 output."""
        self._end(output, shape, grid, "int8")
        self.graph.ops.append(TFLiteOp(code, inputs, [output], options))
        return output

    def _typed(
        self,
        code: str,
        inputs: list[str],
        output: str,
        shape: tuple[int, ...],
        grid: Grid | None,
        dtype: str,
        **options: object,
    ) -> str:
        """Adds an operator with an output of any type, without a scale if none."""
        self._end(output, shape, grid or (1.0, 0), dtype)
        if grid is None:
            self.graph.tensors[output].quantization = None
        self.graph.ops.append(TFLiteOp(code, inputs, [output], options))
        return output

    def _reshape(self, x: str, name: str, shape: tuple[int, ...], grid: Grid) -> str:
        """Adds a RESHAPE."""
        sizes = (-1, *shape[1:]) if self._spec.dynamic else shape
        target = self._constant(f"{name}/shape", np.array(sizes, np.int32))
        return self._op("RESHAPE", [x, target], name, shape, grid)

    def _kernel(
        self,
        code: str,
        source: str,
        shape: tuple[int, ...],
        kernel: tuple[int, ...],
        stride: int | None,
    ) -> str:
        """Adds an operator with random codes as its kernel and a bias."""
        spec, number = self._spec, len(self.graph.ops)
        channels, axis = shape[-1], 3 if code == "DEPTHWISE_CONV_2D" else 0
        place = [op.code in _KERNELS for op in self.graph.ops].count(True)
        place = 3 if code == "FULLY_CONNECTED" else place
        container = CONTAINERS[spec.containers[place]]
        codes = self._rng.integers(container.low, container.high + 1, kernel)
        many = spec.dense_scales > 1 or code != "FULLY_CONNECTED"
        count = channels if many else 1
        scale = np.full(count, 6 / container.high / np.prod(kernel[1:]) ** 0.5)
        scale = (scale * self._rng.uniform(0.5, 1, count)).astype(np.float32)
        zero_point = spec.zero_point if code == "FULLY_CONNECTED" else 0
        name = f"{code.lower()}_{number}"
        weight = self._constant(f"{name}/weight", codes.astype(np.int8))
        self.graph.tensors[weight].dtype = spec.containers[place]
        self.graph.tensors[weight].quantization = TensorQuantization(
            scale, zero_point, axis
        )
        bias = self._constant(f"{name}/bias", np.zeros(channels, np.int32))
        source_grid = self.graph.tensors[source].quantization
        unit = TensorQuantization(scale * source_grid.scale, 0)
        self.graph.tensors[bias].quantization = unit
        options: dict[str, object] = {"fused_activation_function": "NONE"}
        if stride is not None:
            options |= {"stride_h": stride, "stride_w": stride, "padding": "SAME"}
        if code == "DEPTHWISE_CONV_2D":
            options["depth_multiplier"] = spec.depthwise[1]
        grid = _INNER if stride is not None else _LOGITS
        return self._op(code, [source, weight, bias], name, shape, grid, **options)

    def _constant(self, name: str, values: np.ndarray) -> str:
        """Adds a constant."""
        self.graph.tensors[name] = TFLiteTensor(
            name, values.shape, values.dtype.name, data=values
        )
        return name


_KERNELS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def _grid(grid: Grid) -> TensorQuantization:
    """Returns a grid as a tensor has it."""
    return TensorQuantization(np.array([grid[0]], np.float32), grid[1])


def _described(spec: Spec) -> dict[str, bytes]:
    """Returns what `export_model` writes about an input."""
    image = {"kind": "activation", "layer": "image", "bits": 8, "step": spec.grid[0]}
    if spec.says == "pixels":
        mean, std = spec.trained
        image |= {"pixels": {"mean": mean, "std": std, "order": "rgb"}}
    described = {"format": metadata.FORMAT, "tensors": {"image": image}}
    return {metadata.METADATA_NAME: json.dumps(described).encode()}
