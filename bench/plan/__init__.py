"""What must be computed: axes, cells, steps, and which source computes a step.

Called, it is the function `bench.plan`, which has the folder's name.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """A folder of modules that has the name of a function, and is both."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """See `bench.library.plan`."""
        return import_module("bench.library").plan(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
