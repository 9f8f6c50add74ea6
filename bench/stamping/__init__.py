"""Stamps a visible mark on a person's own pictures, and examines pictures for one."""

from bench.stamping.reading import Size, key_size, sample
from bench.stamping.walking import Entry, Report, StampError, Survey, check_apart, survey, walk
from bench.stamping.writing import Stamper, fitted, stamp_all

__all__ = [
    "Entry",
    "Report",
    "Size",
    "StampError",
    "Stamper",
    "Survey",
    "check_apart",
    "fitted",
    "key_size",
    "sample",
    "stamp_all",
    "survey",
    "walk",
]
