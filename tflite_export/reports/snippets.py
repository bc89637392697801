"""Generates code that runs a file with the scales of its inputs and outputs."""

from __future__ import annotations

import dataclasses
import json
import keyword
import math
import re
from collections.abc import Mapping

import numpy as np

from ..cpp import KEYWORDS
from ..file import End, TFLiteGraph, ends_of
from .templating import render

# Language -> suffix of its template.
LANGUAGES = {"python": "py", "kotlin": "kt", "swift": "swift"}
# Words that cannot name a variable in one of the languages, or that the templates use.
_TAKEN = {
    *keyword.kwlist,
    *("Interpreter", "interpreter", "predict", "run", "found", "np", "value", "it"),
    *("as", "break", "case", "catch", "class", "continue", "default", "defer", "do"),
    *("else", "enum", "extension", "false", "for", "fun", "func", "guard", "if"),
    *("import", "in", "init", "inout", "interface", "internal", "is", "let", "null"),
    *("nil", "object", "operator", "package", "private", "protocol", "public"),
    *("repeat", "return", "round", "self", "static", "struct", "subscript", "super"),
    *("switch", "this", "throw", "throws", "true", "try", "typealias", "typeof"),
    *("val", "var", "when", "where", "while", "max", "min"),
    *("Array", "ByteBuffer", "ByteOrder", "Data", "Float", "FloatArray", "Int8"),
    *("List", "UInt8", "listOf", "mapOf"),
}
# Of the template for TFLite Micro.
_TAKEN_IN_C = KEYWORDS | {
    *("Predict", "Start", "arena", "code", "g_model", "i", "interpreter", "int16_t"),
    *("int32_t", "int64_t", "int8_t", "kArenaSize", "kTfLiteOk", "micro", "resolver"),
    *("size_t", "std", "tflite", "uint8_t"),
}


@dataclasses.dataclass(frozen=True)
class _Value:
    """An input or output in the form of the templates; numbers are source text."""

    variable: str
    text: str
    kotlin_text: str
    dtype: str
    shape: str
    size: int
    num_bytes: int
    scale: str = ""
    plus: str = ""
    minus: str = ""
    low: int = 0
    high: int = 0

    @property
    def c_type(self) -> str:
        """Type of its elements in C++."""
        return {"float32": "float", "bool": "bool"}.get(self.dtype, f"{self.dtype}_t")

    @property
    def c_real(self) -> str:
        """Type in C++ of the numbers that it stands for."""
        return "float" if self.scale else self.c_type


def snippets_of(
    graph: TFLiteGraph, file_name: str, takes: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Generates a function that runs a file, in Python, Kotlin and Swift.

    Each function takes and returns real numbers; it quantizes and dequantizes with the
    scales and zero points of the file.

    Args:
        graph: The file's graph.
        file_name: Name of the file.
        takes: Name of an input -> what its real numbers are, for a comment.

    Returns:
        "python", "kotlin" and "swift" -> source text. Python needs `ai-edge-litert`,
        Kotlin needs LiteRT for Android, Swift needs the pod TensorFlowLiteSwift.
    """
    ends = _ends(graph, _TAKEN, takes)
    values = {"file": json.dumps(file_name, ensure_ascii=False), **ends}
    return {
        language: render(f"snippet.{suffix}.j2", autoescape=False, values=values)
        for language, suffix in LANGUAGES.items()
    }


def micro_snippet(
    graph: TFLiteGraph,
    file_name: str,
    methods: list[str],
    arena_bytes: int | None,
    takes: Mapping[str, str] | None = None,
) -> str:
    """Generates C++ that runs a file under TFLite Micro.

    Args:
        graph: The file's graph.
        file_name: Name of the file.
        methods: Methods of `MicroMutableOpResolver` that add the file's operators.
        arena_bytes: Memory that the file needs; None: unknown, and the code does not
            compile.
        takes: As for `snippets_of`.
    """
    ends = _ends(graph, _TAKEN | _TAKEN_IN_C, takes)
    values = {"file": file_name, "methods": methods, "arena_bytes": arena_bytes, **ends}
    return render("snippet.cc.j2", autoescape=False, values=values)


def _ends(
    graph: TFLiteGraph, taken: set[str], takes: Mapping[str, str] | None
) -> dict[str, list[_Value]]:
    """Returns the inputs and outputs of a file for the templates.

    Args:
        graph: The file's graph.
        taken: Names that a variable cannot have.
        takes: As for `snippets_of`.
    """
    taken, takes = set(taken), takes or {}
    values = {
        what: [_value(end, taken) for end in ends_of(graph, getattr(graph, what))]
        for what in ("inputs", "outputs")
    }
    values["inputs"] = [
        dataclasses.replace(value, shape=f"{value.shape}, {takes[end]}")
        if end in takes
        else value
        for end, value in zip(graph.inputs, values["inputs"], strict=True)
    ]
    return values


def _value(end: End, taken: set[str]) -> _Value:
    """Converts an input or output for the templates, with a name that is not taken."""
    text = json.dumps(end.name, ensure_ascii=False)
    shape = (1, *end.shape[1:])
    size = math.prod(shape)
    value = _Value(
        variable=_variable(end.name, taken),
        text=text,
        kotlin_text=text.replace("$", "\\$"),
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


def _signed(number: int) -> str:
    """Returns "+ 3" or "- 3"."""
    return f"{'-' if number < 0 else '+'} {abs(number)}"


def _variable(name: str, taken: set[str]) -> str:
    """Returns a name for a variable, and marks it as taken."""
    variable = re.sub(r"[^0-9A-Za-z_]", "_", name)
    if not variable[0].isalpha():
        variable = f"x{variable}"
    while variable in taken or f"{variable}Codes" in taken:
        variable += "_"
    taken |= {variable, f"{variable}Codes"}
    return variable
