"""The one exception that programs turn into a single line and exit code 2."""


class UserError(Exception):
    """Something the user gave cannot be used.

    The message is one line: which file or flag, what was expected, what was found,
    and what to do about it.
    """
