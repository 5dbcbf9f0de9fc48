"""The names of usage as a tree of the members of a response body."""

from __future__ import annotations

from collections.abc import Iterable

from etl.transform.usage_names import NAMES, Name
from etl.transform.usage_quantities import ALL


class NameTree:
    """A node in the tree of all paths: the quantity here, and the nodes below."""

    __slots__ = ("by", "elements", "members", "quantity")

    def __init__(self) -> None:
        self.quantity: str | None = None
        self.members: dict[str, NameTree] = {}
        """The members of an object, by name."""
        self.by: str | None = None
        """The member that distinguishes the elements of an array; None if all are alike."""
        self.elements: dict[str | None, NameTree] = {}
        """The elements of an array, by the value of that member."""


def tree(names: Iterable[Name] = NAMES) -> NameTree:
    """Return the names as a tree of the members of a response body.

    Raises:
        ValueError: a path has two quantities, or a quantity is not in `ALL`.
    """
    root = NameTree()
    for path, quantity, _ in names:
        node = root
        for part in path.split("."):
            name, bracket, condition = part.partition("[")
            node = node.members.setdefault(name, NameTree())
            if bracket:
                by, _, value = condition.removesuffix("]").partition("=")
                node.by = by or None
                node = node.elements.setdefault(value or None, NameTree())
        if quantity is not None and quantity not in ALL:
            raise ValueError(f"{path}: {quantity} is not a quantity")
        if node.quantity not in (None, quantity):
            raise ValueError(f"{path} has two quantities")
        node.quantity = quantity
    return root
