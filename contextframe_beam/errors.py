"""The exceptions that users of contextframe-beam can catch.

Every message says what was wrong, where, and what to do next. All of them derive from
`ContextFrameError`; those that a caller may also expect under a built-in name derive from that
exception too.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ContextFrameError(Exception):
    """Base class of everything this package raises on purpose."""


class ConfigError(ContextFrameError, ValueError):
    """A wrong argument, option or configuration file; nothing was read or written."""


class SecretError(ContextFrameError):
    """A secret reference that cannot be resolved. The message never holds the secret."""


class ConnectorError(ContextFrameError, ValueError):
    """A source that cannot be reached, refuses the credentials, or answers with nonsense."""

    @property
    def is_of_one(self) -> bool:
        """Whether it may be about a single item, so that others can be read."""
        return True


class NotAuthenticatedError(ConnectorError, RuntimeError):
    """`sync_documents` was called before `authenticate`."""


class RecordError(ContextFrameError, ValueError):
    """A record that cannot be stored as a row of the dataset."""


class SchemaError(ContextFrameError, ValueError):
    """A dataset whose columns are not those of a dataset of frames."""


class DatasetError(ContextFrameError):
    """A dataset that is missing, exists already, or cannot be read or written."""


class CommitError(ContextFrameError):
    """A run that was not committed; the dataset is as it was before."""


class ConcurrentRunError(CommitError):
    """Another run changed what this run depended on; run it again."""


class UnknownCommitError(ContextFrameError):
    """A commit whose outcome the store or the engine does not say; repeat the run with its id."""


class TooManyFailures(CommitError):
    """More items failed than the run allows; nothing was committed."""


class TooManyDeletes(CommitError):
    """The run would delete more of a source than it allows; nothing was committed."""


class TooManyTokens(CommitError):
    """More tokens would be embedded than the run allows; nothing was committed."""


def nearest(name: object, known: Iterable[str]) -> str:
    """Returns `; did you mean x?` for the end of a message, or "" if no known name is near.

    Args:
        name: The unknown name.
        known: The known names.
    """
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""
