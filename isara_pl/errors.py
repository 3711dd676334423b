"""The one error that means: what the user gave cannot be used; and how others are quoted in it."""


class InputError(ValueError):
    """A file, an option, a model or a missing package that the user has to change.

    The message says what is wrong, where, what is allowed and what to do. The command line prints
    it without a traceback.
    """


def first_line(error: Exception) -> str:
    """Give the first line of another library's error, which may have pages."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def printable(text: str) -> str:
    r"""Escape what would steer a terminal, or make a text look like another one; newlines stay.

    Args:
        text: May hold parts of a file, or what a model wrote: ANSI escapes, text that runs from right to left.

    Example:
        >>> print(printable("a red \x1b[31mword"))
        a red \x1b[31mword
    """
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
