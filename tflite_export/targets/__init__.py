"""What each target can run, one module per target; nothing here needs TensorFlow."""

from .edgetpu_compiler import ONLY_RULES, compile_for_edgetpu
from .queries import (
    STORAGES,
    TARGETS,
    check_graph,
    check_options,
    container,
    find_violations,
    option_problems,
    resolve_target,
    runs_on,
    takes_container,
)
from .types import Target, Violation
from .vela import VELA_MISSING, CompiledFile, check_vela, compile_with_vela

__all__ = [
    "ONLY_RULES",
    "STORAGES",
    "TARGETS",
    "VELA_MISSING",
    "CompiledFile",
    "Target",
    "Violation",
    "check_graph",
    "check_options",
    "check_vela",
    "compile_for_edgetpu",
    "compile_with_vela",
    "container",
    "find_violations",
    "option_problems",
    "resolve_target",
    "runs_on",
    "takes_container",
]
