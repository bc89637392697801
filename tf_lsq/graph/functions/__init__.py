"""TensorFlow functions that are called on Keras tensors, and what they become."""
