"""The one error of image data: a sentence that says what was expected, what came, and what to do."""

__all__ = ["DataError"]


class DataError(ValueError):
    """A data set or a picture cannot be had as asked; one sentence says what was looked for, where, and what to do."""
