"""Measurements beside float training and TF-MOT; `python -m benchmarks --help`."""
