"""BaseConnector: the base class of every source, and how a connector travels to a worker.

A connector travels as its class and its constructor arguments, never as its live object, so
sessions, locks and sockets need not pickle. The worker builds and authenticates it again.
References to secrets among the arguments stay references until they are used.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import logging
from abc import ABCMeta
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from threading import get_ident
from typing import TYPE_CHECKING, Any, ClassVar, cast

from contextframe_beam.connectors import identity as _identity
from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.identity import FileClass, source_file, with_line
from contextframe_beam.connectors.page import Page
from contextframe_beam.connectors.plain_secrets import looks_secret, without_credentials
from contextframe_beam.errors import ConfigError, ConnectorError, ContextFrameError
from contextframe_beam.frames.record import Deletion

if TYPE_CHECKING:
    from contextframe_beam.connectors.http.client import HttpClient
    from contextframe_beam.connectors.page import DocumentVersion
    from contextframe_beam.frames.record import FrameRecord

_ADDED_AT_ONCE = 1000


class _ConnectorMeta(ABCMeta):
    """Keeps the arguments that a connector is made with, references to secrets unresolved."""

    # Hidden from type checkers, which check calls against the constructor itself.
    if not TYPE_CHECKING:

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            args, kwargs = secrets.referenced(args), secrets.referenced(kwargs)
            instance = cls.__new__(cls, *args, **kwargs)
            if not isinstance(instance, cls):
                return instance
            state = vars(instance)
            # Copied, because a constructor may change a list or dict among its arguments.
            state["_arguments"] = (_copied(args), _copied(kwargs))
            for name, value in _identity.named_arguments(cls, args, kwargs).items():
                if name not in cls.plain_arguments:
                    secrets.register_literals(value, name)
            instance.__init__(*args, **kwargs)
            # A constructor that writes to __dict__ bypasses __setattr__.
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
    * `authenticate()`, if the source needs credentials.

    It gets these for free: `http_client` gives pooled connections with credentials (OAuth 2, logins
    with one-time codes, ...), retries, budgets and a cache; `logger` gives a log without secrets;
    `get_stats` and `add_stats` give statistics. The base classes in `kinds` add batches, streams,
    pages and incremental reading.

    Any constructor argument may be a reference to a secret (`env:NAME`, `file:PATH`,
    `keyring:NAME`, `gcp-secret:...`). Reading an attribute with a reference gives the secret's
    value; only the reference is stored, shown and pickled. Plain-text secrets under names such as
    `api_key`, and credentials inside addresses, are kept out of `repr`, logs, messages and the sync
    state. But they do travel when the connector is pickled, so give a reference.

    Attributes:
        authenticated: Whether `authenticate` has succeeded in this process.
    """

    #: The arguments that identify the source; None means all but secrets and tuning.
    identity_args: ClassVar[tuple[str, ...] | None] = None

    #: Arguments that hold no secret although their names look so, such as the `key` of a table.
    plain_arguments: ClassVar[frozenset[str]] = frozenset()

    #: Whether its items are files, `FileItem`, which a run parses before it maps them.
    gives_files: ClassVar[bool] = False

    _arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __init__(self) -> None:
        self.authenticated = False

    def authenticate(self) -> bool:
        """Makes the source ready to be read; override it if the source needs credentials.

        Returns:
            True. A subclass may return False or raise if the source refuses it.
        """
        self.authenticated = True
        return True

    def access(self) -> list[str]:
        """Returns what the account may read, a line each, for people who check their set-up.

        It is called after `authenticate`. Empty where a connector tells nothing; then the names of
        its partitions are shown.
        """
        return []

    def account_id(self) -> str:
        """Names the account whose content is read, where the credentials alone say which it is.

        A dataset keeps it with the state of the source. A run that reads another account as the
        same source is refused, since a mirror would delete what the first account has. It is called
        after `authenticate`.

        Returns:
            An id that never changes, such as that of a workspace; empty where the arguments say
            what is read.
        """
        return ""

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
        """Turns one item into a record, or into a deletion if it says that a document is gone.

        Raises:
            ConnectorError: the class does not define it.
        """
        raise self._unwritten(
            "map_to_frame_record(self, item)",
            "return a FrameRecord (contextframe_beam.connectors.FieldMapper can make it)",
        )

    def document_version(self, item: Any) -> DocumentVersion | None:
        """Says which document an item is, and in which version, before its content is fetched.

        A subclass may tell, so that a run leaves out what is stored in that version already and was
        made with the same settings: `map_to_frame_record` is then not called.

        Args:
            item: As the source gave it.

        Returns:
            The id of the record that `map_to_frame_record` makes of the item, and its version; None
            where the source does not tell.
        """
        return None

    def ensure_authenticated(self) -> None:
        """Authenticates, unless it already has.

        Raises:
            ConnectorError: the source refuses.
        """
        if getattr(self, "authenticated", False):
            return
        try:
            accepted = self.authenticate(**self._asked_by_authenticate())
        except (ConfigError, ConnectorError):
            raise
        except Exception as error:
            own = isinstance(error, ContextFrameError)
            reason = secrets.redact(str(error) if own else with_line(error))
            raise ConnectorError(f"{self.name}: authentication failed: {reason}") from error
        if accepted is False:
            raise ConnectorError(f"{self.name}: authentication failed; check its credentials")
        if not getattr(self, "authenticated", False):
            # A subclass may lack the attribute, or may have made it read-only.
            with contextlib.suppress(AttributeError):
                self.authenticated = True

    def sync_to_dataset(self, dataset: Any, **kwargs: Any) -> int:
        """Reads, maps and adds all items in this process, 1000 records a commit.

        Each deletion takes place at its position among the items, in its own commit.

        Args:
            dataset: A FrameDataset.
            **kwargs: The arguments of `sync_documents`.

        Returns:
            The number of added records.

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
                self.add_stats(documents_added=len(batch))
        self.logger.info("%s: added %d documents", self.name, added)
        return added

    def http_client(self, base_url: str, **settings: Any) -> HttpClient:
        """Makes a client for a server of this source; keep it as an attribute.

        Its connections are pooled, and any number of threads can use it. It repeats failed requests
        if that is harmless, renews expired tokens, waits when the server asks for it, and reads
        answers within limits of time and size. `get_stats` and the metrics of a run count its
        requests.

        Args:
            base_url: The server; credentials go to its origin only.
            **settings: The arguments of `HttpClient.from_config`: `auth={"type": "bearer", "token":
                self.token}`, `budget={"per_second": 5}`, `cache={"ttl": 3600}`, `retries=5`,
                `pool_size=16`, `timeout=60`, `headers={...}`, ...

        Raises:
            ConfigError: a setting is unknown, missing or invalid.
        """
        from contextframe_beam.connectors.http.client import HttpClient

        client = HttpClient.from_config(base_url, **settings)
        vars(self).setdefault("_clients", []).append(client)
        return client

    def get_stats(self) -> dict[str, Any]:
        """Returns the statistics of this connector in this process, as JSON values.

        They are the counts of `add_stats`, and `requests`, `retries`, `wait_ms`, `bytes` and
        `cache_hits` of its clients. If `skip` left something out, `skipped` has its name, and why.
        A subclass may add to them.
        """
        skipped = {name: told for (name, _), (_, told) in self._skips()}
        return {
            "connector": self.name,
            "authenticated": bool(getattr(self, "authenticated", False)),
            **({"skipped": skipped} if skipped else {}),
            **self._sent(),
            **vars(self).get("_counts", {}),
        }

    def add_stats(self, **counts: int) -> None:
        """Adds to the counts in `get_stats`.

        Args:
            **counts: How much to add to each, by its name; each begins at 0.
        """
        known = vars(self).setdefault("_counts", {})
        for name, count in counts.items():
            known[name] = known.get(name, 0) + count

    def skip(self, container: str, reason: object) -> Page:
        """Leaves out a part of the source that cannot be read, and names it.

        Call it for a channel, a repository or a folder that the account may not see, or that is
        gone, while the rest can be read: in `partitions()`, or in `fetch_page`, which returns its
        result. The part is named in the log and in `get_stats()["skipped"]`. The run goes on and is
        partial: a mirror deletes nothing, and the next run asks for the part again.

        Args:
            container: What it is called, for people: acme/app.
            reason: The error, or why in words.

        Returns:
            The last page of the partition, which is empty and moves no state.
        """
        told = secrets.redact(f"{container}: {reason}")
        self.logger.warning("%s: left out %s", self.name, told)
        known: dict[tuple[str, int], Any] = vars(self).setdefault("_skipped", {})
        known[secrets.redact(container), get_ident()] = (self._skip_mark(), told)
        return Page([], unread=(told,))

    def http_counts(self) -> dict[str, int]:
        """Returns the HTTP counts in this process so far, for the metrics of a run.

        They are `requests`, `retries` and `wait_ms` (waiting for budgets and limits) of all clients
        from `http_client`. A connector that sends requests in another way may count them itself.
        """
        sent = self._sent()
        return {name: sent[name] for name in ("requests", "retries", "wait_ms") if name in sent}

    @cached_property
    def name(self) -> str:
        """The name that it is registered under, or else the name of its class; for people."""
        return _identity.registered_name(type(self)) or type(self).__name__

    @property
    def logger(self) -> logging.Logger:
        """The connector's logger, which removes secrets."""
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
        """Returns what identifies this source, as a JSON object without secrets.

        That is its class, and the arguments that differ from their defaults, without secrets and
        tuning. A class can list its arguments in `identity_args` instead. The same source has the
        same identity in every process, on every machine.

        Args:
            sync_kwargs: The arguments of `sync_documents` for reading it. Arguments that only
                select a part (`only`, `limit`, `max_items`, `since` and the like) do not count:
                it is still the same source.
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
        reading = _identity.without_narrowing(sync_kwargs or {})
        sync = _identity.essential(reading, _identity.reading_arguments(cls))
        if sync:
            identity["sync"] = _identity.jsonable(sync)
        return identity

    def source_id(self, sync_kwargs: Mapping[str, Any] | None = None) -> str:
        """Returns a digest of `source_identity`, as 16 hexadecimal characters."""
        return _identity.digest(self.source_identity(sync_kwargs))

    def shown_arguments(self) -> dict[str, Any]:
        """Returns the arguments it was made with, by name; plain secrets are stars."""
        named = _identity.named_arguments(type(self), *self._arguments)
        plain = self.plain_arguments
        return {name: _shown(value, "" if name in plain else name) for name, value in named.items()}

    def __setattr__(self, name: str, value: Any) -> None:
        # If the class has an attribute with that name, Python finds it before __getattr__. Then
        # the reference itself stays, which also gives its value when used as text.
        if type(value) is secrets.SecretReference and not hasattr(type(self), name):
            vars(self).pop(name, None)
            vars(self).setdefault("_references", {})[name] = value
        else:
            object.__setattr__(self, name, value)

    # Hidden from type checkers, which would accept any misspelt attribute.
    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            reference = self.__dict__.get("_references", {}).get(name)
            if reference is not None:
                return secrets.resolve(reference)
            return object.__getattribute__(self, name)  # raises the right error

    def __reduce__(self) -> tuple[Any, ...]:
        cls = type(self)
        file = source_file(cls)
        factory: Callable[..., Any] = cls if file is None else FileClass(*file, cls.__qualname__)
        return _rebuild, (factory, *self._arguments)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.shown_arguments().items())
        return secrets.redact(f"{type(self).__name__}({shown})")

    def _skip_mark(self) -> int:
        """Returns a number that is greater than those before it, from any thread."""
        marks: Iterator[int] = vars(self).setdefault("_skip_marks", itertools.count())
        return next(marks)

    def _skipped_since(self, mark: int, anywhere: bool = False) -> tuple[str, ...]:
        """Returns what was left out since a mark by this thread, or by any, and why."""
        return tuple(
            told
            for (_, thread), (number, told) in self._skips()
            if number > mark and (anywhere or thread == get_ident())
        )

    def _skips(self) -> list[tuple[tuple[str, int], tuple[int, str]]]:
        # By thread, because two may leave out the same part at the same time.
        return list(vars(self).get("_skipped", {}).items())

    def _sent(self) -> dict[str, int]:
        """Returns the sums of what its clients have sent."""
        sums: dict[str, int] = {}
        for client in vars(self).get("_clients", ()):
            stats = client.stats
            for name in stats.__slots__:
                sums[name] = sums.get(name, 0) + getattr(stats, name)
        return sums

    def _asked_by_authenticate(self) -> dict[str, Any]:
        """Returns values for the arguments of an `authenticate(self, username, password)`.

        They are the attributes with the same names, which the constructor sets.
        """
        asked = _identity.arguments_of(type(self).authenticate).named
        return {
            name: getattr(self, name)
            for name, one in asked.items()
            if one.default is one.empty and hasattr(self, name)
        }

    def _unwritten(self, signature: str, what: str) -> ConnectorError:
        return ConnectorError(f"{type(self).__name__} has no own {signature}: write it and {what}")


def require_connector(given: Any, what: str) -> BaseConnector:
    """Returns `given`, checked to be a connector.

    Args:
        given: The value.
        what: Its role, for the message.

    Raises:
        ConfigError: it is not a connector; the message says how to make one.
    """
    if isinstance(given, BaseConnector):
        return given
    if isinstance(given, type):
        raise ConfigError(
            f"{what} is the class {given.__name__}; give an object of it: {given.__name__}(...)"
        )
    if isinstance(given, str):
        raise ConfigError(
            f"{what} is the text {secrets.redact(given)!r}; give a connector, which "
            "build_connector(load_connector_class(name), arguments) makes by its name "
            "(contextframe_beam.connectors.registry)"
        )
    raise ConfigError(
        f"{what} is a {type(given).__name__}, not a connector: derive its class from BaseConnector "
        "(contextframe_beam.connectors)"
    )


def _rebuild(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return factory(*args, **kwargs)
    except ContextFrameError:
        raise
    except Exception as error:
        name = getattr(factory, "qualname", None) or getattr(factory, "__qualname__", "it")
        raise ConnectorError(
            secrets.redact(f"{name} cannot be made on a worker: {with_line(error)}")
        ) from None


def _copied(value: Any) -> Any:
    if type(value) is dict:
        return {key: _copied(element) for key, element in value.items()}
    if type(value) is list or type(value) is tuple:
        return type(value)(map(_copied, value))
    return value


def _shown(value: Any, name: str) -> Any:
    """Returns an argument for `repr`, with stars in place of plain secrets."""
    if type(value) is dict:
        return {key: _shown(element, str(key)) for key, element in value.items()}
    if type(value) is list or type(value) is tuple:
        return type(value)(_shown(element, name) for element in value)
    if type(value) is str:
        return "***" if looks_secret(name) else without_credentials(value, name)
    return value
