"""What the tools of a target find about a file: compilers, and TFLite Micro."""

from __future__ import annotations

import dataclasses

from .build import BuiltFile
from .targets import (
    NOT_MEASURED,
    ONLY_RULES,
    TFLITE_MICRO,
    VELA_MISSING,
    CompiledFile,
    Target,
    compile_for_edgetpu,
    compile_with_vela,
    measure_arena,
    runs_on,
)


@dataclasses.dataclass(frozen=True)
class ToolFindings:
    """What the tools of a target found about a file.

    Attributes:
        lines: Readable lines.
        compiled: What Vela made of the file.
        arena_bytes: Memory that TFLite Micro needs.
    """

    lines: list[str] = dataclasses.field(default_factory=list[str])
    compiled: CompiledFile | None = None
    arena_bytes: int | None = None


def run_tools(target: Target, built: BuiltFile) -> ToolFindings:
    """Runs the target's compiler, or its runtime, if it has one.

    Args:
        target: The target.
        built: The file.

    Raises:
        RuntimeError: If the tool refuses the file.
    """
    if target.compiler == "edgetpu_compiler":
        mapping = compile_for_edgetpu(built.content)
        return ToolFindings([ONLY_RULES] if mapping is None else [*map(str, mapping)])
    if target.compiler == "vela":
        compiled = compile_with_vela(built.content, target.name)
        if compiled is None:
            return ToolFindings([VELA_MISSING])
        graph = built.graph
        on_cpu = [
            op.outputs[0] for op in graph.ops if runs_on(op, graph, target) == "CPU"
        ]
        return ToolFindings(compiled.lines(on_cpu), compiled)
    if target.device == TFLITE_MICRO:
        arena_bytes = measure_arena(built.content)
        lines = [NOT_MEASURED] if arena_bytes is None else []
        return ToolFindings(lines, arena_bytes=arena_bytes)
    return ToolFindings()
