"""Adds the products of two tensors to the lowering of a call.

Every sum of products is transpositions and reshapes, which keep codes, around one
product of matrices, which TFLite has for up to five axes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from .functions.recorded import Unsupported
from .lowering import Call
from .moving import add_reshape, add_transpose
from .nodes import Node
from .product_layers import MatMul
from .shape_values import sizes

_MOST_AXES = 5  # Of BATCH_MATMUL.
_ELLIPSIS = "..."
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def add_matmul(
    call: Call, x: Node, y: Node, transposed: tuple[bool, bool], name: str
) -> Node:
    """Adds the products of the matrices in the last two axes of two tensors.

    Args:
        call: The call it belongs to.
        x: The first tensor.
        y: The second, with as many axes.
        transposed: Whether the matrices of each are transposed.
        name: Its name.

    Raises:
        Unsupported: If they have not the same number of axes, 3 to 5.
    """
    ranks = len(x.shape), len(y.shape)
    if ranks[0] != ranks[1] or not 3 <= ranks[0] <= _MOST_AXES:
        raise Unsupported(
            "two computed matrices must have the batch, up to two other axes, rows and "
            f"columns, in both the same number of axes, received {ranks[0]} and "
            f"{ranks[1]}; reshape them"
        )
    layer = MatMul(*transposed, name=name)
    return call.add("matmul", [x, y], layer=layer, transposed=transposed)


def terms_of(equation: str, ranks: tuple[int, int]) -> list[str]:
    """Returns the axes of two tensors and of their product, a letter for each.

    Args:
        equation: An equation of `tf.einsum`, such as "bqhd,bkhd->bhqk"; axes that have
            no letter are "...".
        ranks: How many axes both tensors have.

    Raises:
        Unsupported: If it is no product of two tensors with an explicit result.
    """
    sides = equation.replace(" ", "").split("->")
    terms = [*sides[0].split(","), *sides[1:]]
    if len(sides) != 2 or len(terms) != 3:
        raise Unsupported(
            "the equation must be a product of two tensors with its result, such as "
            f"'bqd,bkd->bqk', received {equation!r}"
        )
    counts = [
        rank - len(term.replace(_ELLIPSIS, "")) if _ELLIPSIS in term else 0
        for term, rank in zip(terms[:2], ranks, strict=True)
    ]
    free = [letter for letter in _LETTERS if letter not in equation]
    names = "".join(free[: max(*counts, 0)])
    filled = [*(names[len(names) - count :] for count in counts), names]
    pairs = zip(terms, filled, strict=True)
    return [term.replace(_ELLIPSIS, letters) for term, letters in pairs]


@dataclasses.dataclass(frozen=True)
class Equation:
    """Names of the axes of two tensors, and of the sum of their products.

    Attributes:
        first: Names of the axes of the first tensor, one letter each.
        second: The same of the second.
        result: The same of the result.
    """

    first: str
    second: str
    result: str

    @classmethod
    def parse(cls, equation: str, ranks: tuple[int, int]) -> Equation:
        """Reads an equation of `tf.einsum`, such as "bqhd,bkhd->bhqk".

        Args:
            equation: The equation; axes that have no letter are "...".
            ranks: How many axes both tensors have.

        Raises:
            Unsupported: If it is no product of two tensors with an explicit result.
        """
        parsed = cls(*terms_of(equation, ranks))
        parsed._check(equation, ranks)
        return parsed

    @classmethod
    def of_dot(cls, x: Node, y: Node, axes: Sequence[int]) -> Equation:
        """Returns the sum of products over one axis of each tensor, for every example.

        Args:
            x: The first tensor.
            y: The second.
            axes: The axis of each, counted from the batch axis.
        """
        batch, summed, *free = _LETTERS
        count = len(x.shape) - 2
        own = free[:count], free[count : count + len(y.shape) - 2]
        first, second = (
            "".join([batch, *rest[: axis - 1], summed, *rest[axis - 1 :]])
            for rest, axis in zip(own, axes, strict=True)
        )
        return cls(first, second, "".join([batch, *own[0], *own[1]]))

    def _check(self, equation: str, ranks: tuple[int, int]) -> None:
        """Refuses an equation that is more than transpositions and one product."""
        terms = (self.first, self.second, self.result)
        known = {*self.first, *self.second}
        lost = (set(self.first) ^ set(self.second)) - set(self.result)
        repeated = any(len(set(term)) < len(term) for term in terms)
        fits = (len(self.first), len(self.second)) == ranks
        if repeated or lost or not fits or not set(self.result) <= known:
            raise Unsupported(
                "every axis must be named once in a tensor, and again in the other "
                f"tensor or in the result, received {equation!r} for {ranks[0]} and "
                f"{ranks[1]} axes"
            )
        if len({self.first[:1], self.second[:1], self.result[:1]}) > 1:
            raise Unsupported(
                f"the batch must be the first axis everywhere, received {equation!r}"
            )

    @property
    def shared(self) -> str:
        """Axes of both tensors and the result, in the order of the result."""
        return "".join(n for n in self.result if n in self.first and n in self.second)

    @property
    def summed(self) -> str:
        """Axes of both tensors alone."""
        both = [n for n in self.first if n in self.second]
        return "".join(n for n in both if n not in self.result)

    def own(self, term: str) -> str:
        """Returns the axes of one tensor and the result, in the order of the result."""
        return "".join(n for n in self.result if n in term and n not in self.shared)

    def exchanged(self) -> Equation:
        """Returns the same with the tensors exchanged."""
        return Equation(self.second, self.first, self.result)


def add_product(call: Call, x: Node, y: Node, equation: Equation, name: str) -> Node:
    """Adds a sum of products of two tensors.

    Args:
        call: The call it belongs to.
        x: The first tensor.
        y: The second.
        equation: Names of their axes.
        name: Its name.

    Raises:
        Unsupported: If a size other than the batch is not known.
    """
    own = equation.own(equation.first), equation.own(equation.second)
    if all(own) and equation.result.index(own[1][0]) < equation.result.index(own[0][0]):
        x, y, equation = y, x, equation.exchanged()
        own = own[1], own[0]
    shared, summed = equation.shared, equation.summed
    known = {
        letter: size
        for term, node in ((equation.first, x), (equation.second, y))
        for letter, size in zip(term[1:], sizes(node.shape, 1)[1:], strict=True)
    }
    left, right = (
        _as_matrices(call, node, (term, shared, rest, summed), known, f"{name}_{end}")
        for node, term, rest, end in (
            (x, equation.first, own[0], "first"),
            (y, equation.second, own[1], "second"),
        )
    )
    # Rows come before sums in the first matrix, and after them in the second.
    transposed = left[1], not right[1]
    found = shared + own[0] + own[1]
    shape = (x.shape[0], *(known[letter] for letter in found[1:]))
    moved = found != equation.result
    plain = len(shared) + 2 <= _MOST_AXES and len(own[0]) == len(own[1]) == 1
    last = name if plain and not moved else f"{name}_matmul"
    product = add_matmul(call, left[0], right[0], transposed, last)
    if not plain:
        product = add_reshape(call, product, shape, f"{name}_axes" if moved else name)
    if moved:
        perm = [found.index(letter) for letter in equation.result]
        product = add_transpose(call, product, perm, name)
    return product


def _as_matrices(
    call: Call,
    x: Node,
    names: Sequence[str],
    known: dict[str, int],
    name: str,
) -> tuple[Node, bool]:
    """Returns a tensor as matrices, and whether the summed axes are their rows.

    Args:
        call: The call it belongs to.
        x: The tensor.
        names: Its axes; those that are shared, kept, and summed, in their order.
        known: Name of an axis -> its size.
        name: Start of the names of new operators.
    """
    term, shared, kept, summed = names
    transposed = term == shared + summed + kept and term != shared + kept + summed
    if not transposed and term != shared + kept + summed:
        perm = [term.index(letter) for letter in shared + kept + summed]
        x = add_transpose(call, x, perm, f"{name}_transposed")
    many = len(shared) + 2 > _MOST_AXES
    if len(kept) == len(summed) == 1 and not many:
        return x, transposed
    batch = [known[letter] for letter in shared[1:]]
    rows, columns = (
        math.prod(known[letter] for letter in part) for part in (kept, summed)
    )
    matrix = (columns, rows) if transposed else (rows, columns)
    shape = (x.shape[0], *([math.prod(batch)] if many else batch), *matrix)
    return add_reshape(call, x, shape, f"{name}_matrices"), transposed
