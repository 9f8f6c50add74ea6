"""Attacks: one file per family, found by scanning this folder."""
