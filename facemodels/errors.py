"""The two exceptions whose message is all that a user needs: the command line prints it without a traceback."""


class InputError(ValueError):
    """A file, folder, photo or setting that cannot be used.

    The message is one sentence that names what came and what to try; the command line prints it
    without a traceback and exits with status 2.
    """


class RunError(RuntimeError):
    """A training run that had to end: it diverged, lost a process, or had no room for its checkpoint.

    The message says which checkpoint is left and what to try; the command line treats it as an `InputError`.
    """
