"""What an app does: bytes in, scores out."""

from __future__ import annotations

from ai_edge_litert.interpreter import Interpreter


def scores_of(path, *images):
    """The outputs of a uint8 file for bytes, `[images, ...]`, one array per input.

    Args:
        path: The file, with uint8 inputs.
        *images: uint8, in the order of the model's inputs.
    """
    interpreter = Interpreter(str(path))
    names = list(interpreter.get_signature_list()["serving_default"]["inputs"])
    details = {d["name"]: d for d in interpreter.get_input_details()}
    assert {d["dtype"].__name__ for d in details.values()} == {"uint8"}
    run = interpreter.get_signature_runner("serving_default")
    [scores] = run(**dict(zip(names, images, strict=True))).values()
    return scores
