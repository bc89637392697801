"""The paper's training recipe as arguments for `compile`.

Networks quantized with LSQ often end up two points below the paper because its
recipe is not followed. The recipe (Esser et al., Section 3 and Table 2):

    start           the trained float network
    optimizer       SGD with momentum 0.9
    learning rate   0.01, at 8 bits 0.001, cosine decay to 0 without restarts
    weight decay    1e-4 at 4 and 8 bits, 0.5e-4 at 3, 0.25e-4 at 2 bits
    length          90 epochs of ImageNet, at 8 bits 1
    loss            softmax cross entropy
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import lsq
from .._compat import keras
from .losses import CrossEntropy
from .optimizers import MODELS_CLIP, AdamWOnKernels, SGDWithL2
from .other_keras import as_tf_keras

VARIANTS = ("paper", "finetune", "adam")
SCHEDULES = ("cosine", "step", "constant")
_LEARNING_RATE = {8: 1e-3}
_WEIGHT_DECAY = {2: 0.25e-4, 3: 0.5e-4}
_MOMENTUM = 0.9
_ADAM_LEARNING_RATE = 1e-3
_WARMUP = 0.05  # Share of the steps of a short fine-tune.
# The paper's schedule in steps: divided by ten every 20 of 90 epochs.
_DROPS = (20 / 90, 40 / 90, 60 / 90, 80 / 90)


def recipe(
    weight_bits: int,
    steps: int,
    *,
    variant: str = "paper",
    learning_rate: Any = None,
    weight_decay: float | None = None,
    momentum: float = _MOMENTUM,
    schedule: str = "cosine",
    step_clip: float | str | None = MODELS_CLIP,
    from_logits: bool | None = None,
    student: Any = None,
) -> dict[str, Any]:
    """Returns optimizer and loss for `compile`, as in the paper.

    Every value can be given; the defaults are the paper's for `weight_bits`:

    - `learning_rate`: 0.01, at 8 bits 0.001 (Section 3); Adam 0.001.
    - `weight_decay`: 0.25e-4, 0.5e-4, 1e-4 at 2, 3, 4 and more bits (Table 2), an L2
      term of the gradient of kernels. Steps, biases and batch norms have none.
    - `momentum`: 0.9 (Section 3).
    - `schedule`: "cosine" (Section 3); "step" is the paper's comparison, which divides
      the learning rate by ten every 20/90 of the steps (Section 3.5); "constant".
    - `step_clip`: the value of `quantize_model`; the paper has none (None).
    - The loss is the softmax cross entropy, for class numbers and one-hot labels.

    Bit widths that the paper does not have, 5 to 7, are trained like 4 bits.

    Variants for cases that the paper does not cover:

    - "finetune", for a few epochs: the learning rate rises during the first twentieth
      of the steps, which protects batch norms that see quantized values for the
      first time, and there is no weight decay, which needs tens of epochs to matter.
    - "adam": Adam with decoupled weight decay. Its decay is that of the paper per
      step, when learning rates are at their peak: ``learning_rate * l2 / (1 - 0.9)``.

    Args:
        weight_bits: Bits of the kernels, 2 to 8; if layers differ, the smallest
            that most of them have.
        steps: Optimizer steps of the whole training: epochs times batches.
        variant: "paper", "finetune" or "adam".
        learning_rate: Its peak, or a schedule of either Keras.
        weight_decay: Factor of the L2 term; for "adam" the decoupled decay.
        momentum: Momentum of SGD.
        schedule: "cosine", "step" or "constant".
        step_clip: Bound on the relative gradients of steps, see `prepare_optimizer`.
            "model": the one that was passed to `quantize_model`.
        from_logits: Whether the outputs are logits. None: inferred from the model's
            graph, for an `LSQModel` or a `Distiller`; other models need a value here.
        student: The model that they are for, whose Keras they get. None: objects of
            tf_keras, which `compile` of a Keras 3 student replaces by its own.

    Returns:
        `{"optimizer": ..., "loss": ...}`.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> arguments = recipe(weight_bits=2, steps=1000)
        >>> arguments["optimizer"].l2
        2.5e-05

    References:
        Esser et al., Sections 3, 3.1 and 3.5, Table 2.
    """
    lsq.check_num_bits(weight_bits, "weight_bits")
    steps = int(steps) if isinstance(steps, np.integer) else steps
    _check(steps, variant, schedule)
    if learning_rate is None:
        learning_rate = _LEARNING_RATE.get(weight_bits, 1e-2)
        if variant == "adam":
            learning_rate = _ADAM_LEARNING_RATE
    warmup = round(_WARMUP * steps) if variant == "finetune" else 0
    rate = _decayed(learning_rate, steps, schedule, warmup)
    if weight_decay is None:
        weight_decay = _weight_decay(weight_bits, variant)
    if variant == "adam":
        optimizer = AdamWOnKernels(rate, weight_decay=weight_decay, step_clip=step_clip)
    else:
        optimizer = SGDWithL2(
            rate, momentum=momentum, l2=weight_decay, step_clip=step_clip
        )
    arguments = {"optimizer": optimizer, "loss": CrossEntropy(from_logits)}
    own = getattr(student, "in_own_keras", None)
    return arguments if own is None else own(arguments)


def _check(steps: Any, variant: str, schedule: str) -> None:
    """Refuses arguments that are out of range."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(
            "`steps` must be the number of optimizer steps, epochs times batches per "
            f"epoch, at least 1. Received: steps={steps!r}."
        )
    for name, value, allowed in (
        ("variant", variant, VARIANTS),
        ("schedule", schedule, SCHEDULES),
    ):
        if value not in allowed:
            raise ValueError(
                f"`{name}` must be one of {list(allowed)}. Received: {name}={value!r}."
            )
    if variant == "finetune" and schedule != "cosine":
        raise ValueError(
            "The variant 'finetune' needs the schedule 'cosine' after its warm-up. "
            f"Received: schedule={schedule!r}."
        )


def _weight_decay(weight_bits: int, variant: str) -> float:
    """Returns the decay of a variant."""
    l2 = _WEIGHT_DECAY.get(weight_bits, 1e-4)
    rate = _LEARNING_RATE.get(weight_bits, 1e-2)
    if variant == "finetune":
        return 0.0
    if variant == "adam":
        # The paper's SGD decay of a kernel per step, over Adam's learning rate.
        return rate * l2 / (1 - _MOMENTUM) / _ADAM_LEARNING_RATE
    return l2


def _decayed(rate: Any, steps: int, schedule: str, warmup: int) -> Any:
    """Returns a learning rate with its schedule."""
    rate, schedules = as_tf_keras(rate), keras.optimizers.schedules
    if isinstance(rate, schedules.LearningRateSchedule):
        return rate
    rate = float(rate)
    if schedule == "cosine" and warmup:
        return schedules.CosineDecay(
            0.0, max(steps - warmup, 1), warmup_target=rate, warmup_steps=warmup
        )
    if schedule == "cosine":
        return schedules.CosineDecay(rate, steps)
    if schedule == "step":
        drops = [max(round(share * steps), 1) for share in _DROPS]
        values = [rate * 0.1**k for k in range(len(drops) + 1)]
        return schedules.PiecewiseConstantDecay(drops, values)
    return rate
