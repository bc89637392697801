"""Trains models on photographs, and compares files fed with bytes with Keras."""
