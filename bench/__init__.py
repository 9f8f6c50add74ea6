"""Watermark Bench: every neural-network watermarking scheme against every attack on every architecture."""

__version__ = "0.1.0"
