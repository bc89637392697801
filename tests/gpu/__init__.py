"""Runs files on LiteRT's GPU accelerator with a Vulkan in software."""
