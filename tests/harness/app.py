"""What an app does: bytes in, scores out."""

from __future__ import annotations

from ai_edge_litert.interpreter import Interpreter


def scores_of(path, images):
    """The output of a uint8 file for bytes.

    Args:
        path: The file, with uint8 inputs.
        images: uint8, `[images, ...]`; by name for several inputs.
    """
    interpreter = Interpreter(str(path))
    assert {d["dtype"].__name__ for d in interpreter.get_input_details()} == {"uint8"}
    run = interpreter.get_signature_runner("serving_default")
    if not isinstance(images, dict):
        [name] = run.get_input_details()
        images = {name: images}
    [scores] = run(**images).values()
    return scores
