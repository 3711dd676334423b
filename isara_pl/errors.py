"""The one error that means: what the user gave cannot be used; and how others are quoted in it."""


class InputError(ValueError):
    """A file, an option, a model or a missing package that the user has to change.

    The message says what is wrong, where, what is allowed and what to do. The command line prints
    it without a traceback.
    """


def first_line(error: Exception) -> str:
    """Give the first line of another library's error, which may have pages."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
