"""Runs files and demo pages in headless Chromium, under LiteRT.js."""
