"""BaseConnector: what every source derives from, and how a connector travels to a worker.

A connector travels as its class and its constructor arguments, never as its live object, so
sessions, locks and sockets need not pickle; the receiving side builds it anew and authenticates it
again. References to secrets among the arguments stay references until they are used.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import logging
from abc import ABCMeta
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast

from contextframe_beam.connectors import _identity, secrets
from contextframe_beam.connectors._file_module import FileClass, source_file
from contextframe_beam.deletion import Deletion
from contextframe_beam.errors import ConnectorError

if TYPE_CHECKING:
    from contextframe_beam.record import FrameRecord

_ADDED_AT_ONCE = 1000


class _ConnectorMeta(ABCMeta):
    """Keeps the arguments that a connector is made with, references to secrets unresolved."""

    # Hidden from type checkers, who check calls against the constructor itself.
    if not TYPE_CHECKING:

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            args, kwargs = secrets.referenced(args), secrets.referenced(kwargs)
            instance = cls.__new__(cls, *args, **kwargs)
            if not isinstance(instance, cls):
                return instance
            state = vars(instance)
            # Copied, because a constructor may change a list or dict that it is given.
            state["_arguments"] = (_copied(args), _copied(kwargs))
            for name, value in _identity.named_arguments(cls, args, kwargs).items():
                secrets.register_literals(value, name)
            instance.__init__(*args, **kwargs)
            # A constructor that writes to __dict__ goes past __setattr__.
            for name, value in list(state.items()):
                if type(value) is secrets.SecretReference:
                    setattr(instance, name, value)
            return instance

        @property
        def __signature__(cls) -> inspect.Signature:
            signature = inspect.signature(cls.__init__)
            return signature.replace(parameters=list(signature.parameters.values())[1:])


class BaseConnector(metaclass=_ConnectorMeta):
    """A source of documents.

    A subclass calls `super().__init__()`, keeps its arguments as attributes, and writes

    * `sync_documents(**kwargs)` (all items as a list) or `sync_documents_stream(**kwargs)` (one
      after the other), and
    * `map_to_frame_record(item)`, and
    * `authenticate()`, if the source wants to know who reads it.

    Any constructor argument may be a reference to a secret (`env:NAME`, `file:PATH`,
    `gcp-secret:...`). An attribute that holds one gives its value each time it is read; only the
    reference is stored, shown and pickled. Plain-text secrets under names such as `api_key` are
    kept out of `repr`, logs and messages, but they do travel when the connector is pickled: give a
    reference.

    Attributes:
        authenticated: Whether `authenticate` has succeeded in this process.
    """

    #: The arguments that say which source it is; None means all but secrets and tuning.
    identity_args: ClassVar[tuple[str, ...] | None] = None

    _arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __init__(self) -> None:
        self.authenticated = False

    def authenticate(self) -> bool:
        """Makes the source ready to be read; a source that asks for nothing needs no own one.

        Returns:
            True. A subclass may return False or raise when it is refused.
        """
        self.authenticated = True
        return True

    def sync_documents(self, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        """Reads all items of the source into a list; a subclass may name the arguments.

        Raises:
            ConnectorError: the class does not say how to read.
        """
        stream = getattr(self, "sync_documents_stream", None)
        if stream is None:
            raise self._unwritten("sync_documents(self, **kwargs)", "return the items as a list")
        return list(stream(*args, **kwargs))

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord | Deletion:
        """Turns one item into a record, or into a deletion when it says that a document is gone.

        Raises:
            ConnectorError: the class does not say how.
        """
        raise self._unwritten(
            "map_to_frame_record(self, item)",
            "return a FrameRecord (contextframe_beam.connectors.FieldMapper can make it)",
        )

    def ensure_authenticated(self) -> None:
        """Authenticates unless that has been done.

        Raises:
            ConnectorError: the source refuses.
        """
        if getattr(self, "authenticated", False):
            return
        try:
            accepted = self.authenticate()
        except ConnectorError:
            raise
        except Exception as error:
            reason = secrets.redact(f"{type(error).__name__}: {error}")
            raise ConnectorError(f"{self.name}: authentication failed: {reason}") from error
        if accepted is False:
            raise ConnectorError(f"{self.name}: authentication failed; check its credentials")
        if not getattr(self, "authenticated", False):
            # A subclass need not keep the attribute, and may have made it read-only.
            with contextlib.suppress(AttributeError):
                self.authenticated = True

    def sync_to_dataset(self, dataset: Any, **kwargs: Any) -> int:
        """Reads, maps and adds all items in this process, 1000 records a commit.

        Deletions are done where they stand among the items, each in a commit of its own.

        Args:
            dataset: A FrameDataset.
            **kwargs: What `sync_documents` takes.

        Returns:
            How many records were added.

        Raises:
            ConnectorError: the source refuses the credentials or cannot be read.
        """
        self.ensure_authenticated()
        read = getattr(self, "sync_documents_stream", self.sync_documents)
        mapped = map(self.map_to_frame_record, read(**kwargs))
        added = 0
        for kind, group in itertools.groupby(mapped, type):
            if kind is Deletion:
                for deletion in group:
                    dataset.delete(cast(Deletion, deletion).key)
                continue
            while batch := list(itertools.islice(group, _ADDED_AT_ONCE)):
                dataset.add_many(batch)
                added += len(batch)
                self._count(documents_added=len(batch))
        self.logger.info("%s: added %d documents", self.name, added)
        return added

    def get_stats(self) -> dict[str, Any]:
        """Returns what is known about this connector's work in this process, as JSON values."""
        return {
            "connector": self.name,
            "authenticated": bool(getattr(self, "authenticated", False)),
            **vars(self).get("_counts", {}),
        }

    def http_counts(self) -> dict[str, int]:
        """Returns what was sent over HTTP so far in this process, for a run's metrics.

        A connector that sends requests gives `requests`, `retries` and `wait_ms` (waiting for
        budgets and limits), each since it was made.
        """
        return {}

    @cached_property
    def name(self) -> str:
        """The name it is registered under, else the name of its class; for people."""
        from contextframe_beam.connectors.registry import registered_name

        return registered_name(type(self)) or type(self).__name__

    @property
    def logger(self) -> logging.Logger:
        """The connector's logger; what it logs holds no secrets."""
        if "logger" not in vars(self):
            self.logger = logging.getLogger(f"{type(self).__module__}.{type(self).__qualname__}")
        logger: logging.Logger = vars(self)["logger"]
        return logger

    @logger.setter
    def logger(self, logger: logging.Logger) -> None:
        vars(self)["logger"] = logger
        known = getattr(logger, "filters", None)
        if known is not None and not any(isinstance(f, secrets.RedactingFilter) for f in known):
            logger.addFilter(secrets.RedactingFilter())

    def source_identity(self, sync_kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns what makes this source itself, as a JSON object without secrets.

        That is its class and those arguments that differ from their defaults, without secrets and
        without what only tunes how it is read; `identity_args` of a class names its arguments
        instead. The same source has the same identity in every process, on every machine.

        Args:
            sync_kwargs: The arguments of `sync_documents` that it is read with.
        """
        cls = type(self)
        arguments = _identity.named_arguments(cls, *self._arguments)
        if cls.identity_args is None:
            arguments = _identity.essential(arguments, _identity.constructor_arguments(cls))
        else:
            arguments = {key: arguments[key] for key in cls.identity_args if key in arguments}
        identity = {
            "connector": _identity.class_path(cls),
            "arguments": _identity.jsonable(arguments),
        }
        sync = _identity.essential(sync_kwargs or {}, _identity.reading_arguments(cls))
        if sync:
            identity["sync"] = _identity.jsonable(sync)
        return identity

    def source_id(self, sync_kwargs: Mapping[str, Any] | None = None) -> str:
        """Returns 16 hexadecimal characters made of `source_identity`."""
        return _identity.digest(self.source_identity(sync_kwargs))

    def __setattr__(self, name: str, value: Any) -> None:
        # Where the class has an attribute of that name, it would be found before __getattr__ is
        # asked; there the reference itself stays, which also is its value when used as text.
        if type(value) is secrets.SecretReference and not hasattr(type(self), name):
            vars(self).pop(name, None)
            vars(self).setdefault("_references", {})[name] = value
        else:
            object.__setattr__(self, name, value)

    # Hidden from type checkers, who would take any misspelt attribute for a valid one.
    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            reference = self.__dict__.get("_references", {}).get(name)
            if reference is not None:
                return secrets.resolve(reference)
            return object.__getattribute__(self, name)  # raises the error that fits

    def __reduce__(self) -> tuple[Any, ...]:
        cls = type(self)
        file = source_file(cls)
        factory: Callable[..., Any] = cls if file is None else FileClass(*file, cls.__qualname__)
        return _rebuild, (factory, *self._arguments)

    def __repr__(self) -> str:
        named = _identity.named_arguments(type(self), *self._arguments)
        shown = ", ".join(f"{name}={_shown(value, name)!r}" for name, value in named.items())
        return secrets.redact(f"{type(self).__name__}({shown})")

    def _count(self, **counts: int) -> None:
        """Adds to the numbers that `get_stats` gives."""
        known = vars(self).setdefault("_counts", {})
        for name, count in counts.items():
            known[name] = known.get(name, 0) + count

    def _unwritten(self, signature: str, what: str) -> ConnectorError:
        return ConnectorError(f"{type(self).__name__} has no own {signature}: write it and {what}")


def _rebuild(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return factory(*args, **kwargs)


def _copied(value: Any) -> Any:
    if type(value) is dict:
        return {key: _copied(element) for key, element in value.items()}
    if type(value) is list or type(value) is tuple:
        return type(value)(map(_copied, value))
    return value


def _shown(value: Any, name: str) -> Any:
    """Returns an argument as `repr` may show it: plain secrets are starred."""
    if type(value) is dict:
        return {key: _shown(element, str(key)) for key, element in value.items()}
    if type(value) is list or type(value) is tuple:
        return type(value)(_shown(element, name) for element in value)
    if type(value) is str and secrets.looks_secret(name):
        return "***"
    return value
