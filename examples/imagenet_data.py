"""Reads ImageNet, as prepared by TensorFlow Datasets, in batches for `imagenet.py`.

Shuffling, crops and mirroring depend only on the seed and the number of the epoch, so
that a training that continues after an interruption sees the same data as without it.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf
import tensorflow_datasets as tfds

CROPPED = 224 / 256  # Share of the shorter side of an image that a crop keeps.
_EPOCH = 2**32  # More examples than an epoch has.


@dataclasses.dataclass(frozen=True)
class ImageNet:
    """A prepared data set with the splits and features of `imagenet2012`.

    Attributes:
        builder: Builder of TensorFlow Datasets: splits "train" and "validation", with
            JPEG images "image" and class numbers "label".
        image_size: Height and width of an image in pixels.
        batch_size: Total batch size of all workers.
        buffer: Size of the shuffle buffer, in examples, on every worker.
        seed: Seed of order, crops and mirroring.
    """

    builder: tfds.core.DatasetBuilder
    image_size: int = 224
    batch_size: int = 256
    buffer: int = 16384
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the structure of the data."""
        info = self.builder.info
        present = {*info.splits, *info.features}
        if not {"train", "validation", "image", "label"} <= present:
            raise ValueError(
                "The data set must be prepared, with splits 'train' and 'validation' "
                f"and features 'image' and 'label'. Received: `{self.builder.name}` in "
                f"{self.builder.data_dir}, with splits {sorted(info.splits)} and "
                f"features {sorted(info.features)}."
            )

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.builder.info.features["label"].num_classes

    @property
    def steps(self) -> int:
        """Batches per epoch; an incomplete last batch is dropped."""
        return self.builder.info.splits["train"].num_examples // self.batch_size

    def training(
        self, epoch: tf.Variable, context: tf.distribute.InputContext
    ) -> tf.data.Dataset:
        """Returns the batches of one epoch for `fit`.

        Every worker reads its own files, in the same number of batches of the global
        size; `tf.distribute` splits them, and a worker consumes its share.

        Args:
            epoch: Number of the epoch, int64, read when an epoch begins.
            context: The number of workers, and the index of this one.

        Returns:
            Pairs of uint8 images `[batch, height, width, 3]` and class numbers.
        """
        data = tf.data.Dataset.range(1).flat_map(
            lambda _: self._epoch(tf.convert_to_tensor(epoch), context)
        )
        data = data.map(self._random_crop, tf.data.AUTOTUNE, deterministic=True)
        data = data.batch(self.batch_size, drop_remainder=True).take(self.steps)
        # `BackupAndRestore` counts correctly only if the length of an epoch is known.
        data = data.apply(tf.data.experimental.assert_cardinality(self.steps))
        return _sharding(data, tf.data.experimental.AutoShardPolicy.OFF)

    def _epoch(
        self, epoch: tf.Tensor, context: tf.distribute.InputContext
    ) -> tf.data.Dataset:
        """Returns an endless dataset of numbered examples, in the order of an epoch."""
        workers, worker = context.num_input_pipelines, context.input_pipeline_id
        order = epoch + self.seed * _EPOCH
        # Seeds this graph, so that the order does not depend on that of the process.
        tf.random.set_seed(1)
        options = tfds.ReadConfig(
            shuffle_seed=order,
            shuffle_reshuffle_each_iteration=False,
            try_autocache=False,
            input_context=context if workers > 1 else None,
        )
        data = self._examples("train", options, shuffled=True)
        data = data.shuffle(self.buffer, seed=order, reshuffle_each_iteration=False)
        # If files do not divide evenly, a worker repeats some of its examples.
        first = (epoch * workers + worker) * _EPOCH
        return data.repeat().enumerate(first)

    def validation(
        self, *, batch_size: int | None = None, count: int = -1
    ) -> tf.data.Dataset:
        """Returns validation images in order; `tf.distribute` divides every batch.

        Args:
            batch_size: Batch size; None: that of the training.
            count: How many of the first images to return; -1: all.

        Returns:
            Pairs of uint8 images `[batch, height, width, 3]` and class numbers.
        """
        data = self._examples("validation", tfds.ReadConfig(), shuffled=False)
        data = data.take(count)
        data = data.map(self._central_crop, tf.data.AUTOTUNE, deterministic=True)
        data = data.batch(batch_size or self.batch_size)
        return _sharding(data, tf.data.experimental.AutoShardPolicy.DATA)

    def _examples(
        self, split: str, options: tfds.ReadConfig, *, shuffled: bool
    ) -> tf.data.Dataset:
        """Returns examples, of which only the JPEG bytes and labels are read."""
        decoders = tfds.decode.PartialDecoding(
            {"image": True, "label": True},
            decoders={"image": tfds.decode.SkipDecoding()},
        )
        return self.builder.as_dataset(
            split, shuffle_files=shuffled, decoders=decoders, read_config=options
        )

    def _random_crop(
        self, number: tf.Tensor, example: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns a random crop, mirrored half of the time, and its class."""
        places = tf.random.stateless_uniform([3], tf.stack([self.seed + 1, number]))
        image = self._crop(example["image"], places[:2])
        mirrored = tf.where(places[2] < 0.5, image, image[:, ::-1])
        return mirrored, example["label"]

    def _central_crop(
        self, example: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the central crop, and its class."""
        return self._crop(example["image"], tf.constant([0.5, 0.5])), example["label"]

    def _crop(self, content: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        """Returns a square of an image, with integer pixels as from a camera.

        Cropping 224 pixels from an image resized to a shorter side of 256 is the same
        as cropping 224/256 of that side from the original image. So only that part is
        decoded.

        Args:
            content: JPEG bytes.
            place: Row and column of the square, from 0 to 1 of the possible range.
        """
        shape = tf.image.extract_jpeg_shape(content)[:2]
        shorter = tf.cast(tf.reduce_min(shape), tf.float32)
        side = tf.maximum(tf.cast(tf.round(shorter * CROPPED), tf.int32), 1)
        margin = tf.cast(shape - side, tf.float32)
        corner = tf.cast(tf.round(place * margin), tf.int32)
        window = tf.concat([corner, tf.stack([side, side])], axis=0)
        image = tf.image.decode_and_crop_jpeg(
            content, window, channels=3, dct_method="INTEGER_ACCURATE"
        )
        size = (self.image_size, self.image_size)
        image = tf.image.resize(image, size, antialias=True)
        image.set_shape((*size, 3))
        return tf.saturate_cast(tf.round(image), tf.uint8)


def _sharding(
    data: tf.data.Dataset, policy: tf.data.experimental.AutoShardPolicy
) -> tf.data.Dataset:
    """Makes `tf.distribute` divide a dataset among workers by a policy."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = policy
    return data.prefetch(tf.data.AUTOTUNE).with_options(options)
