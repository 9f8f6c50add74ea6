"""What is a network trained on? Image sets as device tensors, augmentation in batches."""

from bench.data.augmentation import AUGMENTATIONS, augment
from bench.data.catalog import DATASETS, DataError, card
from bench.data.loading import Data, checksum, load

__all__ = ["AUGMENTATIONS", "DATASETS", "Data", "DataError", "augment", "card", "checksum", "load"]
