"""Generates code that runs a file with the scales of its inputs and outputs."""

from __future__ import annotations

import dataclasses
import keyword
import math
import re
from collections.abc import Mapping

import numpy as np

from ..consumers import CONSUMERS, FileFacts, judge
from ..cpp import KEYWORDS
from ..file import (
    End,
    Normalization,
    StandardMetadata,
    TFLiteGraph,
    bytes_are_codes,
    ends_of,
    standard_metadata,
)
from .templating import render

# Language, and library where there are several -> its template.
LANGUAGES = {
    "python": "snippet.py.j2",
    "javascript": "snippet.js.j2",
    "kotlin": "snippet.kt.j2",
    "kotlin-compiled-model": "snippet.compiled_model.kt.j2",
    "kotlin-mediapipe": "snippet.mediapipe.kt.j2",
    "swift": "snippet.swift.j2",
}
# Types in the languages of phones, of arrays and of their elements.
_KOTLIN = {
    "bool": "Boolean",
    "float32": "Float",
    "int8": "Byte",
    "int32": "Int",
    "int64": "Long",
    "uint8": "Byte",
}
_SWIFT = {
    "bool": "Bool",
    "float32": "Float",
    "int32": "Int32",
    "int64": "Int64",
    "uint8": "UInt8",
}
_JAVASCRIPT = {
    "float32": "Float32Array",
    "int32": "Int32Array",
    "uint8": "Uint8Array",
}
# Language -> the consumer whose rules on inputs and outputs a file must keep.
_CONSUMERS = {"javascript": "web", "kotlin-mediapipe": "mediapipe", "swift": "ios"}
# Languages whose code here converts no codes of 16 bits.
_IN_BYTES = ("kotlin", "kotlin-compiled-model", "swift")
# Of more variables for an input or output.
_ENDINGS = ("Codes", "Labels", "Values", "_labels")
_LAST_SHORT = 0xFFFF  # Later characters have longer numbers.
# Words that cannot name a variable in one of the languages, or that the templates use.
_TAKEN = {
    *keyword.kwlist,
    *_KOTLIN.values(),
    *(f"{name}Array" for name in _KOTLIN.values()),
    *_SWIFT.values(),
    *_JAVASCRIPT.values(),
    # Words of Kotlin, Swift and JavaScript.
    *"""arguments as async await break case catch class const continue debugger default
    defer delete do else enum eval export extension false for fun func function guard
    if implements import in init inout instanceof interface internal is it let new null
    nil object of operator package private protocol public repeat return self static
    struct subscript super switch this throw throws true try typealias typeof val var
    void when where while xor yield""".split(),
    # Types and functions of languages and libraries, and roots of packages.
    *"""Accelerator Any Array BaseOptions Bitmap BitmapImageBuilder ByteBuffer ByteOrder
    CompiledModel Context Data Foundation ImageClassifier Interpreter List Math Object
    Pair String Tensor TensorFlowLite TypeError Uint8ClampedArray ai_edge_litert android
    com floatArrayOf java kotlin listOf loadAndCompile loadLiteRt mapOf max min np numpy
    org round sorted to zip""".split(),
    # What the templates themselves define, and arguments that they name.
    *"""accelerator at base bitPattern bitmap byte classifier classify code context
    found i inputs interpreter key label load model near one options other outputs pair
    pixels predict roundEven run tensor toInputAt value""".split(),
}
# Of the template for TFLite Micro.
_TAKEN_IN_C = KEYWORDS | {
    *"""GetModel Invoke MicroInterpreter MicroMutableOpResolver Predict Start arena
    channel code deviation fmax fmin g_model i int16_t int32_t int64_t int8_t
    interpreter kArenaSize kTfLiteOk mean micro nearbyint resolver size_t std tflite
    typed_input_tensor typed_output_tensor uint8_t""".split(),
}


@dataclasses.dataclass(frozen=True)
class _Value:
    """An input or output in the form of the templates; numbers are source text.

    Attributes:
        variable: Its name in the code.
        name: Its name in the file.
        dtype: Type of its codes.
        shape: Sizes, the batch as 1.
        size: Number of elements.
        num_bytes: Size of its codes.
        scale: Of its grid; "" without one.
        plus: The addition of the zero point.
        minus: Its subtraction.
        low: Smallest code.
        high: Largest code.
        pixels: "bytes" if bytes of pixels are codes of an input, after the
            subtraction of 128 in int8; "values" if they become values by `mean` and
            `std`; "" for other inputs.
        mean: See `pixels`; one number or one per channel.
        std: The same.
        labels: Of the last axis of an output.
        is_list: Whether an output is one score for each label.
    """

    variable: str
    name: str
    dtype: str
    shape: str
    size: int
    num_bytes: int
    scale: str = ""
    plus: str = ""
    minus: str = ""
    low: int = 0
    high: int = 0
    pixels: str = ""
    mean: tuple[str, ...] = ()
    std: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    is_list: bool = False

    @property
    def c_type(self) -> str:
        """Type of its elements in C++."""
        return {"float32": "float", "bool": "bool"}.get(self.dtype, f"{self.dtype}_t")

    @property
    def c_real(self) -> str:
        """Type in C++ of the numbers that it stands for."""
        if self.pixels:
            return "uint8_t"
        return "float" if self.scale else self.c_type

    @property
    def given(self) -> str:
        """Type of what the functions take and return."""
        if self.pixels:
            return "uint8"
        return "float32" if self.scale else self.dtype

    @property
    def kotlin(self) -> str:
        """Type of the elements of what the functions take and return, in Kotlin."""
        return _KOTLIN[self.given]

    @property
    def swift(self) -> str:
        """The same in Swift."""
        return _SWIFT[self.given]


def snippets_of(
    graph: TFLiteGraph,
    file_name: str,
    normalization: Mapping[str, Normalization] | None = None,
) -> dict[str, str]:
    """Generates functions that run a file, for apps and pages.

    They take and return real numbers, and quantize and dequantize with the scales and
    zero points of the file. Where its standard metadata say how an input is made of
    bytes of pixels, they take the bytes; where they have labels, another function
    returns these with their scores.

    Args:
        graph: The file's graph.
        file_name: Name of the file.
        normalization: Input -> how it is made of bytes, beside what the file says.

    Returns:
        Language, of `LANGUAGES` -> source text, without those that cannot run the file.
        Python needs `ai-edge-litert`, JavaScript `@litertjs/core`, Kotlin LiteRT or
        MediaPipe for Android, Swift the pod TensorFlowLiteSwift.
    """
    ends = _ends(graph, _TAKEN, normalization)
    values = {"file": file_name, "arrays": _JAVASCRIPT, **ends}
    return {
        language: render(
            template, autoescape=False, filters={"quote": _quoted}, values=values
        ).rstrip()
        + "\n"
        for language, template in LANGUAGES.items()
        if not snippet_refusal(language, graph)
    }


def snippet_refusal(language: str, graph: TFLiteGraph) -> str:
    """Returns why code in a language could not run a file; "" if it can.

    Args:
        language: Of `LANGUAGES`.
        graph: The file's graph; only its inputs and outputs matter.
    """
    names = {**graph.inputs, **graph.outputs}
    wide = [e for e, name in names.items() if graph.tensors[name].dtype == "int16"]
    if language in _IN_BYTES and wide:
        return (
            f"The code for {language} converts codes of 8 bits. Received: int16 for "
            f'{wide}. Export with input_type="float32" and output_type="float32".'
        )
    if language not in _CONSUMERS:
        return ""
    consumer = CONSUMERS[_CONSUMERS[language]]
    rules = tuple(rule for rule in consumer.rules if rule.needed_by_code)
    ends = FileFacts(graph, None, None)
    report = judge(ends, dataclasses.replace(consumer, rules=rules))
    return " ".join(map(str, report.findings))


def micro_snippet(
    graph: TFLiteGraph,
    file_name: str,
    methods: list[str],
    arena_bytes: int | None,
    normalization: Mapping[str, Normalization] | None = None,
) -> str:
    """Generates C++ that runs a file under TFLite Micro.

    Args:
        graph: The file's graph.
        file_name: Name of the file.
        methods: Methods of `MicroMutableOpResolver` that add the file's operators.
        arena_bytes: Memory that the file needs; None: unknown, and the code does not
            compile.
        normalization: As for `snippets_of`.
    """
    ends = _ends(graph, _TAKEN | _TAKEN_IN_C, normalization)
    values = {"file": file_name, "methods": methods, "arena_bytes": arena_bytes, **ends}
    return render("snippet.cc.j2", autoescape=False, values=values)


def _ends(
    graph: TFLiteGraph,
    taken: set[str],
    normalization: Mapping[str, Normalization] | None,
) -> dict[str, list[_Value]]:
    """Returns the inputs and outputs of a file for the templates.

    Args:
        graph: The file's graph.
        taken: Names that a variable cannot have.
        normalization: As for `snippets_of`.
    """
    taken, described = set(taken), standard_metadata.read(graph) or StandardMetadata()
    known = {**described.normalization, **(normalization or {})}
    inputs = [
        _input(end, taken, known.get(end.name)) for end in ends_of(graph, graph.inputs)
    ]
    outputs = [
        dataclasses.replace(
            _value(end, taken),
            labels=tuple(described.labels.get(end.name, ())),
            is_list=len(end.shape) == 2,
        )
        for end in ends_of(graph, graph.outputs)
    ]
    return {"inputs": inputs, "outputs": outputs}


def _input(end: End, taken: set[str], normalization: Normalization | None) -> _Value:
    """Converts an input for the templates, with what makes it of bytes."""
    value = _value(end, taken)
    if normalization is None:
        return value
    mean, std = np.broadcast_arrays(
        np.array(normalization.mean, np.float32),
        np.array(normalization.std, np.float32),
    )
    return dataclasses.replace(
        value,
        pixels="bytes" if bytes_are_codes(end, normalization) else "values",
        mean=tuple(map(str, mean)),
        std=tuple(map(str, std)),
    )


def _value(end: End, taken: set[str]) -> _Value:
    """Converts an input or output for the templates, with a name that is not taken."""
    shape = (1, *end.shape[1:])
    size = math.prod(shape)
    value = _Value(
        variable=_variable(end.name, taken),
        name=end.name,
        dtype=end.dtype,
        shape=str(list(shape)),
        size=size,
        num_bytes=size * np.dtype(end.dtype).itemsize,
    )
    if end.scale is None or end.zero_point is None:
        return value
    limits = np.iinfo(end.dtype)
    return dataclasses.replace(
        value,
        scale=str(np.float32(end.scale)),
        plus=_signed(end.zero_point),
        minus=_signed(-end.zero_point),
        low=int(limits.min),
        high=int(limits.max),
    )


def _quoted(text: str, language: str) -> str:
    r"""Returns a text as the source of a string.

    Args:
        text: Any text.
        language: "python", "javascript", "kotlin" or "swift".

    Example:
        >>> print(_quoted('"$1"', "kotlin"), _quoted("a\x01b", "swift"))
        "\"\$1\"" "a\u{1}b"
    """
    special = '"\\$' if language == "kotlin" else '"\\'
    number = "\\u{{{:x}}}" if language == "swift" else "\\u{:04x}"
    parts = [
        f"\\{char}"
        if char in special
        else number.format(ord(char))
        if not char.isprintable() and ord(char) <= _LAST_SHORT
        else char
        for char in text
    ]
    return f'"{"".join(parts)}"'


def _signed(number: int) -> str:
    """Returns "+ 3" or "- 3"."""
    return f"{'-' if number < 0 else '+'} {abs(number)}"


def _variable(name: str, taken: set[str]) -> str:
    """Returns a name for a variable, and marks it as taken."""
    variable = re.sub(r"[^0-9A-Za-z_]", "_", name)
    if not variable[0].isalpha():
        variable = f"x{variable}"
    while taken & (names := {variable, *(variable + ending for ending in _ENDINGS)}):
        variable += "_"
    taken |= names
    return variable
