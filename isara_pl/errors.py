"""The one error that means: what the user gave cannot be used."""


class InputError(ValueError):
    """A file, an option, a model or a missing package that the user has to change.

    The message says what is wrong, where, what is allowed and what to do. The command line prints
    it without a traceback.
    """
