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
from .types import Target, Violation

__all__ = [
    "ONLY_RULES",
    "STORAGES",
    "TARGETS",
    "Target",
    "Violation",
    "check_graph",
    "compile_for_edgetpu",
    "container",
    "find_violations",
    "fitting_containers",
    "resolve_target",
    "runs_on",
    "takes_container",
]
