"""Errors that a user can act on: the command line prints them as one sentence, exit status 2."""


class RsbPoseError(Exception):
    """Base of all errors whose message says what was wrong, what was expected and what to do."""


class ConfigError(RsbPoseError, ValueError):
    """A training configuration or a command-line value cannot be used."""


class DataError(RsbPoseError, ValueError):
    """Training or evaluation data is missing or not in the documented format."""
