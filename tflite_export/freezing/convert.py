"""Converts a layer left in float that has no separate row, with TFLiteConverter."""

from __future__ import annotations

import tensorflow as tf

from tf_lsq._compat import keras
from tf_lsq.graph import Node

from ..file import TFLiteGraph, from_bytes


def convert_layer(node: Node, *, dynamic_batch: bool) -> TFLiteGraph:
    """Converts one layer in float with TFLiteConverter.

    Args:
        node: An operator of kind "foreign".
        dynamic_batch: Whether the batch size may change at run time.

    Returns:
        A graph with the inputs "input_0", "input_1", ... and one output.

    Raises:
        ValueError: If TFLite's own operators cannot express the layer in one graph.
    """
    batch = None if dynamic_batch else 1
    inputs = [
        keras.Input(batch_shape=(batch, *source.shape[1:]), name=f"input_{number}")
        for number, source in enumerate(node.inputs)
    ]
    config = {**node.layer.get_config(), "dtype": "float32"}  # Whatever it was before.
    copy = type(node.layer).from_config(config)
    model = keras.Model(inputs, node.call(copy, inputs), name="layer")
    copy.set_weights(node.layer.get_weights())
    try:
        content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
        return from_bytes(content)
    except Exception as error:
        raise ValueError(
            f"`{node.layer.name}` ({type(node.layer).__name__}) must have a form in "
            "TFLite's own operators to be left in float. Received from "
            f"TFLiteConverter: {error}. Remove the layer from the model, and run it "
            "before or after the file."
        ) from error
