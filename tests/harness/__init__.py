"""Shared test code: small models, float64 references, scripts."""
