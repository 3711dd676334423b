"""Log lines while there are progress bars: above them, not in the middle of them."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class _Stream:
    """A stream that writes with a function."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.write = write

    def flush(self) -> None:
        """Nothing waits."""


@contextmanager
def logged_above(logger: logging.Logger, write: Callable[[str], None]) -> Iterator[None]:
    """Let a logger's lines for the terminal be written with a function inside the block.

    Args:
        logger: The logger.
        write: Writes a text to stderr without disturbing the bars.
    """
    rerouted: list[tuple[logging.StreamHandler[Any], Any]] = []
    if sys.stderr.isatty():
        rerouted = [(handler, handler.stream) for handler in _handlers(logger) if _is_terminal(handler)]
    for handler, _ in rerouted:
        handler.setStream(_Stream(write))
    try:
        yield
    finally:
        for handler, stream in rerouted:
            handler.setStream(stream)


def _handlers(logger: logging.Logger) -> list[logging.StreamHandler[Any]]:
    handlers: list[logging.Handler] = []
    asked: logging.Logger | None = logger
    while asked:
        handlers.extend(asked.handlers)
        asked = asked.parent if asked.propagate else None
    return [handler for handler in handlers if isinstance(handler, logging.StreamHandler)]


def _is_terminal(handler: logging.StreamHandler[Any]) -> bool:
    return handler.stream in (sys.stderr, sys.__stderr__)
