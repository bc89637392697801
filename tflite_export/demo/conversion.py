"""A file as LiteRT.js takes it: with uint8 inputs and outputs in place of int8 ones."""

from __future__ import annotations

import numpy as np

from ..file import TFLiteGraph, as_int8, from_bytes, rewritten, with_uint8_ends
from ..runtimes import Runner


def for_the_web(content: bytes) -> tuple[TFLiteGraph, bytes]:
    """Returns a file with ends that LiteRT.js takes, as a graph and as bytes.

    A file without int8 inputs and outputs stays as it is. Another one is run before and
    after the change, on random codes, so that files of other tools are safe as well.

    Args:
        content: The bytes of a file.

    Raises:
        ValueError: If the file cannot be read, or the change would be more than that.
    """
    graph = from_bytes(content)
    ends = [*graph.inputs.values(), *graph.outputs.values()]
    if all(graph.tensors[name].dtype != "int8" for name in ends):
        return graph, content
    try:
        changed = with_uint8_ends(graph)
        in_page = rewritten(changed)
        _check_same(graph, content, changed, in_page)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            "The inputs and outputs of the file must be uint8 or float32, as LiteRT.js "
            "refuses int8, or become uint8 without another change of the file. "
            f"Received int8, and: {error} Export it with input_type='uint8', "
            "output_type='uint8'."
        ) from error
    return changed, in_page


def _check_same(
    graph: TFLiteGraph, content: bytes, changed: TFLiteGraph, in_page: bytes
) -> None:
    """Checks that a file computes the same integers with uint8 ends.

    Raises:
        ValueError: If it does not.
        RuntimeError: If LiteRT cannot run one of them.
    """
    rng = np.random.default_rng(0)
    given, own_given = dict[str, np.ndarray](), dict[str, np.ndarray]()
    for name, tensor in graph.inputs.items():
        dtype = graph.tensors[tensor].dtype
        codes = rng.integers(0, 256, graph.tensors[tensor].shape).astype(np.uint8)
        own_given[name] = as_int8(codes) if dtype == "int8" else codes.astype(dtype)
        given[name] = codes if dtype == "int8" else own_given[name]
    own = Runner(graph, content=content).run_one(own_given)
    found = Runner(changed, content=in_page).run_one(given)
    differ = [
        name
        for name, values in own.items()
        if not np.array_equal(
            values, as_int8(found[name]) if values.dtype == np.int8 else found[name]
        )
    ]
    if differ:
        raise ValueError(f"these outputs would change: {differ}.")
