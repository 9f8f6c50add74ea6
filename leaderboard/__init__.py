"""Records in, one self-contained static page out."""

from __future__ import annotations

from leaderboard.page import build
from leaderboard.table import rows

__all__ = ["build", "rows"]
