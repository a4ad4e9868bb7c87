"""The errors of a run that a user can mend."""


class RunError(Exception):
    """A run that cannot go on; the message is one line that says what, where and the way out."""
