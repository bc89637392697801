"""Runs files under LiteRT for arm64, and compares every tensor with the twin."""
