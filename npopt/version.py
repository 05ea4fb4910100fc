"""The version of the package; a leaf, so that results can name it."""

__version__ = "0.1.0"
