"""What each target can run, one module per target; nothing here needs TensorFlow."""

from .edgetpu_compiler import ONLY_RULES, compile_for_edgetpu
from .queries import (
    STORAGES,
    TARGETS,
    check_graph,
    container,
    find_violations,
    fitting_containers,
    resolve_target,
    runs_on,
    takes_container,
)
from .tflm import resolver_method
from .tflm_arena import NOT_MEASURED, measure_arena
from .types import TFLITE_MICRO, Target, Violation

__all__ = [
    "NOT_MEASURED",
    "ONLY_RULES",
    "STORAGES",
    "TARGETS",
    "TFLITE_MICRO",
    "Target",
    "Violation",
    "check_graph",
    "compile_for_edgetpu",
    "container",
    "find_violations",
    "fitting_containers",
    "measure_arena",
    "resolve_target",
    "resolver_method",
    "runs_on",
    "takes_container",
]
