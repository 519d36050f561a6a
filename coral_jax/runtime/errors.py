"""Errors that users can cause, and hints for them."""

import difflib
from collections.abc import Iterable


class NonFiniteError(ArithmeticError):
    """A loss or a weight stopped being a number."""


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word most like `word`, as text for an error: '; did you mean "x"?', or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
