"""What this project warns of: sentences for the user, who needs no line of our source beside them."""

import warnings
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_warn as _rank_zero_warn

from isara_pl.errors import Notice, printable


def rank_zero_warn(text: str) -> None:
    """Warn, in the first process alone, as Lightning's function of this name does, with a category of our own."""
    _rank_zero_warn(text, category=Notice)


def print_as_sentences() -> None:
    """Let our warnings be printed as `warning: ` and their text; Python's own way names a file and a line before it."""
    usual: Any = warnings.formatwarning  # Lightning's, where it was imported
    if not isinstance(usual, _Sentences):
        warnings.formatwarning = _Sentences(usual)


class _Sentences:
    def __init__(self, usual: Any) -> None:
        self._usual = usual

    def __call__(self, message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> str:
        if issubclass(category, Notice):
            return f"warning: {printable(str(message))}\n"
        text: str = self._usual(message, category, *where, **more)
        return text
