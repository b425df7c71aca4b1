"""The one exception for input that a user can mend."""


class InputError(ValueError):
    """A file, folder, photo or setting that cannot be used.

    The message is one sentence that names what came and what to try; the command line prints it
    without a traceback and exits with status 2.
    """
