"""Compares with float training and TF-MOT; see `python -m benchmarks --help`."""
