"""Every error that a user can cause, in one tree.

    AutosamError                 one clear line: what, where, what to do; the commands exit with 2
    ├── DatasetError             the raw data set or one of its files is not as it must be
    ├── ImageFileError           a file cannot be read or written as an image
    ├── PlanError                a plan, split or settings file is missing or has a wrong value
    ├── WeightsError             encoder weights are missing, incomplete or not the ones named
    ├── ModelError               no trained model, or more than one, fits what was asked for
    ├── CacheError               a cached embedding does not match its key or its checksum
    ├── BusyError                another process is at work on the same files
    └── UsageError               the command line asks for something that does not exist

Faults of the program itself are never wrapped: they keep their traceback.
"""

from __future__ import annotations


class AutosamError(Exception):
    """A user's problem that one line can explain; a name out of a file that has line breaks does not make it two."""

    def __init__(self, message: str) -> None:
        signs = (sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in message)
        super().__init__("".join(signs))


class DatasetError(AutosamError):
    """The raw data set is not as it must be."""


class ImageFileError(AutosamError):
    """A file cannot be read or written as an image."""


class PlanError(AutosamError):
    """A plan, split or settings file is missing or has a wrong value."""


class WeightsError(AutosamError):
    """Encoder weights are missing, incomplete or not the ones named."""


class ModelError(AutosamError):
    """No trained model, or more than one, fits what was asked for."""


class CacheError(AutosamError):
    """A cached embedding does not match its key or its checksum."""


class BusyError(AutosamError):
    """Another process is at work on the same files."""


class UsageError(AutosamError):
    """The command line asks for something that does not exist."""
