"""Keras 3 models: their twins in tf_keras, compared with them."""
