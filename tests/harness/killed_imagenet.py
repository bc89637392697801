"""Runs `examples/imagenet.py`, and kills it with SIGKILL in the middle of training.

Arguments: name of the training run, epoch, batch; then the arguments of the example.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "examples"))

import imagenet
import imagenet_training
import progress


class Killing(progress.ProgressBar):
    """Kills the process at a given batch."""

    place = None  # Name of the training run, epoch, batch.

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self._description, self.epoch, batch) == self.place:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    name, epoch, batch = sys.argv[1:4]
    del sys.argv[1:4]
    Killing.place = name, int(epoch), int(batch)
    imagenet_training.ProgressBar = Killing
    imagenet.main()
