"""Runs files under the runtimes of other years, and compares them with the twin."""
