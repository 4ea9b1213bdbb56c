"""The one exception that users are meant to read."""


class CapscopeError(Exception):
    """A problem that the user can mend: bad input, a wrong parameter, a missing file.

    The message names the file, key or value and says what to do. The command line prints it
    without a traceback and exits with status 2; anything else is a bug and keeps its traceback.
    """
