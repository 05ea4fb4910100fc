"""Packages that one tool needs and the rest does without."""

import importlib

from npopt.errors import UserError


class Absent(UserError):
    """A package is not installed."""


def optional(module, package, tool):
    """The module, or an Absent that says what to install. package: its name for pip; tool: what needs it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise Absent(f"{tool} needs {package}, which is not installed: pip install {package}") from None
