"""Syntax trees of the packages' files."""

BODIES = "body", "orelse", "finalbody", "handlers", "cases"


def statements(tree):
    """The statements of a tree at any depth, and the handlers and cases among them. Nine nodes in ten are parts of
    expressions, and are not visited."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        for name in BODIES:
            inside = getattr(node, name, [])
            yield from inside
            waiting += inside
