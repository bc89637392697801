"""Whether code in a language could run the file of a model, before it is exported."""

from __future__ import annotations

from tf_lsq._compat import keras

from .consumers import CONSUMERS, Choice
from .file import TFLiteGraph, TFLiteTensor
from .freezing import check_quantized, target_of
from .pipeline import choose_for
from .reports import snippet_refusal
from .targets import TARGETS, TFLITE_MICRO


def check_snippet(
    language: str,
    model: keras.Model,
    *,
    consumer: str | None,
    input_type: str | None,
    output_type: str | None,
) -> None:
    """Checks that code in a language could run the file of a model.

    Args:
        language: "cpp", or of `reports.snippets.LANGUAGES`.
        model: A quantized model.
        consumer: As given to `export_model`.
        input_type: The same.
        output_type: The same.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If it could not, or `model` is not quantized.
    """
    model = check_quantized(model)
    if language == "cpp":
        target = target_of(model)
        if TARGETS[target].device != TFLITE_MICRO:
            raise ValueError(
                "`snippet` must not be 'cpp' unless the target is 'tflm'. Received: "
                f"the target {target!r}."
            )
        return
    reader = None if consumer is None else CONSUMERS[consumer]
    choice = choose_for(model, reader, input_type, output_type)
    refusal = snippet_refusal(language, _only_ends(model, choice))
    if refusal:
        raise ValueError(f"`snippet` cannot be {language!r}: {refusal}")


def _only_ends(model: keras.Model, choice: Choice) -> TFLiteGraph:
    """Returns a graph with the inputs and outputs of a model's file, and no more."""
    graph = TFLiteGraph({}, [], {}, {})
    for names, tensors, dtype, ends in (
        (model.input_names, model.inputs, choice.input_type, graph.inputs),
        (model.output_names, model.outputs, choice.output_type, graph.outputs),
    ):
        for name, tensor in zip(names, tensors, strict=True):
            shape, place = (1, *tensor.shape[1:]), f"{len(graph.tensors)}"
            graph.tensors[place] = TFLiteTensor(place, shape, dtype, dynamic_batch=True)
            ends[name] = place
    return graph
