"""What each target can run, one module per target; nothing here needs TensorFlow."""

from .edgetpu_compiler import ONLY_RULES, compile_for_edgetpu
from .queries import (
    STORAGES,
    TARGETS,
    check_graph,
    check_options,
    container,
    find_violations,
    fitting_containers,
    option_problems,
    resolve_target,
    runs_on,
    takes_container,
)
from .tflm import resolver_method
from .tflm_arena import NOT_MEASURED, measure_arena
from .types import TFLITE_MICRO, XNNPACK, Target, Violation
from .vela import VELA_MISSING, CompiledFile, check_vela, compile_with_vela

__all__ = [
    "NOT_MEASURED",
    "ONLY_RULES",
    "STORAGES",
    "TARGETS",
    "TFLITE_MICRO",
    "VELA_MISSING",
    "XNNPACK",
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
    "fitting_containers",
    "measure_arena",
    "option_problems",
    "resolve_target",
    "resolver_method",
    "runs_on",
    "takes_container",
]
