"""What the outputs of a file mean: classes, a mask, or boxes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..file import End, TFLiteGraph, score_function

TASKS = ("classes", "mask", "boxes")
# Order of the numbers of a box, as fractions of height and width.
BOXES = ("yxyx", "xyxy", "cxcywh")


@dataclasses.dataclass(frozen=True)
class Outputs:
    """The outputs of a file, as a page shows them.

    Attributes:
        task: One of `TASKS`.
        scores: The output with the scores of the classes.
        boxes: The output with boxes; None without any.
        box_format: One of `BOXES`; "" without boxes.
        num_classes: How many classes there are.
        meaning: What a score is: "softmax" or "sigmoid", a probability by that
            function; "logits": any number.
    """

    task: str
    scores: End
    boxes: End | None
    box_format: str
    num_classes: int
    meaning: str


def read_outputs(
    graph: TFLiteGraph, ends: Sequence[End], box_format: str | None
) -> Outputs:
    """Returns what the outputs of a file mean, by their shapes and operators.

    Args:
        graph: The file.
        ends: Its outputs.
        box_format: One of `BOXES`, for a file with boxes.

    Raises:
        ValueError: If a page cannot show them, or `box_format` is missing or unknown.
    """
    if box_format not in (None, *BOXES):
        raise ValueError(
            f"`boxes` must be one of {list(BOXES)}. Received: {box_format!r}."
        )
    boxes = [end for end in ends if len(end.shape) == 3 and end.shape[-1] == 4]
    rest = [end for end in ends if end not in boxes[:1]]
    wrong = [end for end in ends if end.dtype not in ("uint8", "float32")]
    if wrong or len(rest) != 1:
        raise ValueError(_refusal(ends))
    [scores] = rest
    meaning = score_function(graph, graph.outputs[scores.name])
    if boxes:
        return _with_boxes(ends, scores, boxes[0], box_format, meaning)
    sizes = [size for size in scores.shape[1:-1] if size != 1]
    task = {0: "classes", 2: "mask"}.get(len(sizes), "")
    if not task or len(scores.shape) not in (2, 4):
        raise ValueError(_refusal(ends))
    if box_format is not None:
        raise ValueError(
            "`boxes` must be left out for a file without boxes. Received: "
            f"{box_format!r}."
        )
    return Outputs(task, scores, None, "", scores.shape[-1], meaning)


def _with_boxes(
    ends: Sequence[End], scores: End, boxes: End, box_format: str | None, meaning: str
) -> Outputs:
    """Returns the outputs of a detector.

    Raises:
        ValueError: If they do not belong together.
    """
    if box_format is None:
        raise ValueError(
            f"`boxes` must be one of {list(BOXES)} for a file with boxes: the order of "
            "their numbers, as fractions of the picture. Received none, and "
            f"{boxes.name!r} {list(boxes.shape)}."
        )
    if len(scores.shape) != 3 or scores.shape[1] != boxes.shape[1]:
        raise ValueError(_refusal(ends))
    if meaning == "logits":
        raise ValueError(
            "The scores of boxes must be computed by a sigmoid or a softmax in the "
            f"file. Received other numbers in {scores.name!r}. Add the activation to "
            "the model."
        )
    return Outputs("boxes", scores, boxes, box_format, scores.shape[-1], meaning)


def _refusal(ends: Sequence[End]) -> str:
    """Returns why a page cannot show these outputs."""
    found = ", ".join(f"{end.name!r}: {end.dtype} {list(end.shape)}" for end in ends)
    return (
        "The outputs of the file must be int8, uint8 or float32, and one of: scores "
        "[1, classes]; a mask [1, height, width, classes]; boxes [1, count, 4] and "
        f"their scores [1, count, classes]. Received {found}."
    )
