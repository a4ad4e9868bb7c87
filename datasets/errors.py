"""The one error of the data: a single clear line for the user."""


class DataError(Exception):
    """Data that are missing, damaged or too few; the message says what, where and the way out."""
