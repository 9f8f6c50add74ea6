"""Schemes: one file per family, found by scanning this folder. Names with a leading underscore are helpers."""
