"""In which form a target computes normalizations, as data, and the user's choice.

Two forms are exact integers, and each is trained as the file computes it:

    int16   every tensor inside has 16 bits: within one code of float. LiteRT computes
            int16 in plain loops, which take 10 to 100 times as long as XNNPACK.
    int8    8 bits inside, but the sum of squares is exact, in int32. Centering and
            scaling run in XNNPACK.

In both, a table has the reciprocal root of every sum of squares. Layers that
`overrides` leave in float have a third form: operators in float, between DEQUANTIZE and
QUANTIZE.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from .graph import (
    NORMALIZE,
    Graph,
    Node,
    NormForm,
    expand_norm,
    fold_norm,
    most_values,
    num_values,
    override_for,
)
from .overrides import names_of

# Names of forms for all normalizations, or for those that patterns match; None: the
# default of the target.
Choice = str | Mapping[str, str] | None

# A table has 2 bytes for each of 16384 sums in int16, and one for each of 4096 in int8,
# where more sums change nothing: see `benchmarks/norms.py`.
_INT16 = NormForm("int16", inner=16, variance=14, root=16)
_INT8 = NormForm("int8", inner=8, variance=12, root=8)
# GATHER of TFLite Micro has int8 tables and int32 indices, and its BATCH_MATMUL no
# int32 output.
_MICRO = NormForm("int16", inner=16, variance=12, root=8)
# Target -> its forms; the first is its default. An Edge TPU computes neither int16 nor
# GATHER, SUM and BATCH_MATMUL.
#
# References: tflite/kernels of https://github.com/google-ai-edge/LiteRT;
# tensorflow/lite/micro/kernels/{gather,batch_matmul}.cc of
# https://github.com/tensorflow/tflite-micro;
# https://coral.ai/docs/edgetpu/models-intro/#supported-operations
NORM_FORMS: dict[str, tuple[NormForm, ...]] = {
    "phone": (_INT8, _INT16),
    "symmetric": (_INT8, _INT16),
    "tflm": (_MICRO,),
    "ethos-u55-128": (_MICRO,),
    "ethos-u65-256": (_MICRO,),
    "ethos-u85-256": (_MICRO,),
    "edgetpu": (),
}
NAMES = ("int8", "int16")


def check_choice(choice: Choice) -> None:
    """Refuses what is no choice of forms.

    Args:
        choice: A name, or patterns of layer names with a name each.

    Raises:
        ValueError: If a name is none of `NAMES`.
    """
    given = choice.values() if isinstance(choice, Mapping) else [choice]
    wrong = [name for name in given if not (name is None or name in NAMES)]
    if wrong:
        raise ValueError(
            f"`norm_form` must be one of {list(NAMES)}, or map patterns of layer names "
            f'to these. Received: {wrong}. To leave a layer in float: overrides={{"'
            f'<its name>": "float"}}.'
        )


def expand_norms(
    graph: Graph, target: str, choice: Choice, is_float: Callable[[Node], bool]
) -> None:
    """Puts the operators of their forms in the place of normalizations.

    Args:
        graph: The fused graph of a float model, which changes.
        target: What the file will run on.
        choice: The user's choice.
        is_float: Whether a node stays in float; such normalizations stay as they are.

    Raises:
        ValueError: If the target has no form for a layer, or not the chosen one, a sum
            would not fit, or a pattern matches no normalization; the error names all.
    """
    norms = [n for n in graph.nodes if n.kind == NORMALIZE and not is_float(n)]
    chosen = {node: _form_of(node, target, choice) for node in norms}
    problems = _problems(chosen, target, choice, graph)
    if problems:
        floats = {override_for(node): "float" for node in norms}
        raise ValueError(
            "Every normalization must have a form that the target computes. Received: "
            f"{'; '.join(problems)}. To leave layers in float: overrides={floats}."
        )
    copies: dict[int, list[Any]] = {}
    for node, form in chosen.items():
        if isinstance(form, NormForm):
            if not any(is_float(reader) for reader in node.consumers):
                fold_norm(graph, node)
            expand_norm(graph, node, form, copies)


def _form_of(node: Node, target: str, choice: Choice) -> NormForm | str:
    """Returns the form of a normalization, or why it has none."""
    forms, name = NORM_FORMS[target], None
    for pattern, wanted in _patterns(choice).items():
        if _matches(pattern, node):
            name = wanted
    found = [form for form in forms if name in (None, form.name)]
    if not found:
        known = f"only {[form.name for form in forms]}" if forms else "no form"
        return f"{target!r} has {known} for `{node.origin}`"
    count, most = num_values(node), most_values(node, found[0])
    if count > most:
        return f"`{node.origin}` sums {count} values, and {most} fit"
    return found[0]


def _problems(
    chosen: Mapping[Node, NormForm | str], target: str, choice: Choice, graph: Graph
) -> list[str]:
    """Returns why forms cannot be chosen."""
    problems = [form for form in chosen.values() if isinstance(form, str)]
    if isinstance(choice, Mapping):
        norms = [node for node in graph.nodes if node.kind == NORMALIZE]
        problems += [
            f"the pattern {pattern!r} of `norm_form` matches no normalization"
            for pattern in choice
            if not any(_matches(pattern, node) for node in norms)
        ]
    return list(dict.fromkeys(problems))


def _matches(pattern: str, node: Node) -> bool:
    """Returns whether a pattern matches a name of a normalization."""
    return any(re.fullmatch(pattern, name) for name in names_of(node))


def _patterns(choice: Choice) -> Mapping[str, str]:
    """Returns a choice as patterns."""
    if isinstance(choice, Mapping):
        return choice
    return {} if choice is None else {".*": choice}
