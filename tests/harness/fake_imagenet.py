"""Writes a tiny data set with the structure of TFDS' imagenet2012.

Argument: the folder to pass to `tfds.builder` as `data_dir`.
"""

from __future__ import annotations

import sys

import numpy as np
import tensorflow_datasets as tfds

NAME = "fake_imagenet"
CLASSES = 1000
# Split -> number of examples.
EXAMPLES = {"train": 70, "validation": 21}


class FakeImagenet(tfds.core.GeneratorBasedBuilder):
    """JPEG images of several sizes; each image of a split has a different class."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(num_classes=CLASSES),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(name) for name in EXAMPLES}

    def _generate_examples(self, split):
        rng = np.random.default_rng(len(split))
        for number in range(EXAMPLES[split]):
            height, width = rng.integers(36, 64, 2)
            image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
            name = f"{split}_{number:08d}.JPEG"
            yield name, {"image": image, "label": number, "file_name": name}


def write(folder):
    """Prepares the data set in two files per split, for two workers."""
    config = tfds.download.DownloadConfig(num_shards=2)
    FakeImagenet(data_dir=str(folder)).download_and_prepare(download_config=config)


if __name__ == "__main__":
    write(sys.argv[1])
