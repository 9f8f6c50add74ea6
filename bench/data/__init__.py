"""Image sets as device tensors, and their augmentation in batches."""

from bench.data.augmentation import AUGMENTATIONS, augment
from bench.data.catalog import DATASETS, card
from bench.data.errors import DataError
from bench.data.loading import Data, checksum, load

__all__ = ["AUGMENTATIONS", "DATASETS", "Data", "DataError", "augment", "card", "checksum", "load"]
