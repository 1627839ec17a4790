"""The one exception that a user's own mistake may raise."""


class UserError(Exception):
    """A mistake that its reader can mend; `utils.cli` prints it as one line, exit code 2.

    The message says what was expected, what was given, and what to do.
    """
