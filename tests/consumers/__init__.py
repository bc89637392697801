"""Runs files in the consumers of finished files, and compares with what rules say."""
