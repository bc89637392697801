"""Shows one progress bar for a whole training run, instead of a line per epoch."""

from __future__ import annotations

from typing import Any

import tf_keras as keras
from tqdm import tqdm


class ProgressBar(keras.callbacks.Callback):
    """Shows a training run as one bar over all its optimizer steps.

    Args:
        description: Text before the bar.
    """

    def __init__(self, description: str) -> None:
        super().__init__()
        self._description = description

    def on_train_begin(self, logs: Any = None) -> None:
        """Opens the bar."""
        total = (self.params["steps"] or 0) * self.params["epochs"]
        self._bar = tqdm(
            total=total or None,
            desc=self._description,
            unit="step",
            disable=None,  # Unless it is a terminal.
        )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Advances the bar."""
        self._bar.update(1)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Shows the latest figures."""
        self._bar.set_postfix({k: f"{v:.3f}" for k, v in (logs or {}).items()})

    def on_train_end(self, logs: Any = None) -> None:
        """Closes the bar."""
        self._bar.close()
