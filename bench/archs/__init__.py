r"""Networks: one file per architecture, found by scanning this folder.

A new architecture is one file here and no line anywhere else. Its class derives from `bench.api.Arch` and is known by a
literal class attribute: `name = "wrn"`, or, for a family, `pattern = r"wrn-(?P<D>\d{1,3})-(?P<K>\d{1,2})"` with a
class method `member`, which is given the numbers and returns the architecture.
"""

from bench.archs.building import Classifier, build
from bench.archs.lookup import arch, layer_path, module_of, names

__all__ = ["Classifier", "arch", "build", "layer_path", "module_of", "names"]
