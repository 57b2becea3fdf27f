"""Embedders: their interface, their identity in a dataset, and how to load one by name.

An embedder makes vectors from texts. Its name is `NAME[:MODEL]`, as in `wordllama` or
`openai:text-embedding-3-small`, or `package.module:Class` for your own. NAME is an entry point of
the group `contextframe.embedders`. Embedders are in a higher layer than datasets, so a dataset that
searches by meaning finds its embedder here, by that name.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from contextframe_beam.errors import ConfigError, ContextFrameError, nearest
from contextframe_beam.lazy import registered

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "GROUP",
    "Embedder",
    "EmbedderError",
    "EmbedderIdentity",
    "EmbedderRefusedError",
    "EmbedderSpec",
    "EmbeddingError",
    "Kind",
    "Vectors",
    "embedder_names",
    "load_embedder",
    "split_name",
]

#: The entry points of embedders: each is called with the model (None without one) and the settings.
GROUP = "contextframe.embedders"

#: The kind of a text: a piece of a document, or a search query.
Kind: TypeAlias = Literal["passage", "query"]
#: The vectors of n texts, float32, of the shape (n, dim).
Vectors: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"

# The entry point that takes `package.module:Class` as its model.
_OWN = "class"
_PATH = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*\Z")


class EmbeddingError(ContextFrameError, ValueError):
    """A text that cannot be embedded, although the embedder works."""


class EmbedderError(ContextFrameError):
    """An embedder that cannot be used, or gives wrong answers: no text can be embedded."""


class EmbedderRefusedError(EmbedderError):
    """A service that refuses the credentials or has no quota left; asking again does not help."""


@dataclass(frozen=True, slots=True)
class EmbedderIdentity:
    """What makes vectors comparable: a dataset records it, and later runs must have the same.

    Attributes:
        name: The embedder's name, or the class of your own embedder.
        model: Its model, as given; "" if it has only one.
        dim: The number of values in a vector.
        metric: How vectors are compared: cosine, dot or l2.
        normalised: Whether each vector has the length 1.
        fingerprint: 32 hexadecimal digits from everything that decides the vectors, such as the
            files of the model. With equal fingerprints, vectors can be compared and reused.
    """

    name: str
    model: str
    dim: int
    metric: str
    normalised: bool
    fingerprint: str

    def to_json(self) -> str:
        """Returns it as JSON text, the same for the same identity."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> EmbedderIdentity:
        """Returns what `to_json` wrote; names from later releases are ignored.

        Raises:
            ConfigError: it is not the identity of an embedder.
        """
        kinds = {"dim": int, "normalised": bool}
        try:
            told = json.loads(text)
            values = {one.name: told[one.name] for one in fields(cls)}
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ConfigError(f"{text!r:.80} is not a record of an embedder ({error!r})") from None
        wrong = [one for one, value in values.items() if type(value) is not kinds.get(one, str)]
        if wrong:
            raise ConfigError(f"{text!r:.80} is not a record of an embedder ({', '.join(wrong)})")
        return cls(**values)

    @property
    def spec(self) -> str:
        """The name to load it by, `NAME[:MODEL]`."""
        is_own = ":" in self.name  # a class, which has its model inside
        return f"{self.name}:{self.model}" if self.model and not is_own else self.name

    def __str__(self) -> str:
        return f"{self.spec} ({self.dim} dimensions, {self.fingerprint[:8]})"


@runtime_checkable
class Embedder(Protocol):
    """Makes vectors from texts.

    One object is used by several threads at the same time.
    """

    @property
    def identity(self) -> EmbedderIdentity:
        """What makes its vectors comparable with others."""

    @property
    def dim(self) -> int:
        """The number of values in a vector."""

    @property
    def max_tokens(self) -> int | None:
        """The length of the longest text that it reads, in its own tokens; None for any length."""

    def embed(self, texts: Sequence[str], kind: Kind = "passage") -> Vectors:
        """Returns a vector for each text, in order: float32, of the shape (n, dim).

        Args:
            texts: The texts.
            kind: Whether they are pieces of documents or queries.

        Raises:
            EmbeddingError: it cannot embed one of the texts.
            EmbedderError: it cannot embed any text.
        """

    def count(self, texts: Sequence[str]) -> list[int]:
        """Returns the length of each text as a passage, in the embedder's own tokens."""


def embedder_names() -> list[str]:
    """Returns the names of all registered embedders."""
    return sorted({one.name for one in registered(GROUP)} - {_OWN})


def split_name(spec: str) -> tuple[str, str | None]:
    """Returns the registered name and the model of `NAME[:MODEL]` or `package.module:Class`.

    Raises:
        ConfigError: there is no such embedder; the message names the nearest.
    """
    name, colon, model = spec.strip().partition(":")
    known = embedder_names()
    if name in known:
        if colon and not model:
            raise ConfigError(f"the embedder {spec!r} has no model after the colon")
        return name, model or None
    # A misspelt name with a model looks like a class, but a module name is seldom so similar.
    near = nearest(name, known)
    if _PATH.match(spec.strip()) and ("." in name or not near):
        return _OWN, spec.strip()
    raise ConfigError(
        f"there is no embedder {name!r}{near} (there are: {', '.join(known)}); one of your own is "
        "given as package.module:Class"
    )


def load_embedder(
    spec: str, *, dim: int | None = None, workers: int | None = None, **settings: Any
) -> Embedder:
    """Returns the embedder with a name; in a process, the same object for the same settings.

    Args:
        spec: `NAME[:MODEL]`, or `package.module:Class`.
        dim: The length of its vectors, if known; then a service is not asked for it.
        workers: How many processes on this machine embed; a local model uses its share of the
            processors.
        **settings: The embedder's settings, such as `url`, `key` and `budget`; None is left out.

    Raises:
        ConfigError: the embedder is unknown, has other settings or another dimension, or its
            packages are not installed.
        EmbedderError: it cannot be used.
    """
    settings = {name: value for name, value in settings.items() if value is not None}
    key = _key(spec, dim, workers, settings)
    with _lock:
        lock = _locks.setdefault(key, threading.Lock())
    with lock:  # threads wait for the same model, but load different models at once
        if key not in _loaded:
            _loaded[key] = _made(spec, {"dim": dim, "workers": workers}, settings)
        return _loaded[key]


@dataclass(frozen=True)
class EmbedderSpec:
    """An embedder on its way to other processes: with what each of them loads it.

    Attributes:
        name: `NAME[:MODEL]`, or `package.module:Class`.
        settings: What it takes, such as `url`, `key` and `budget`; secrets as references.
        identity: What its vectors are; None where that is not to be asked for yet.
        workers: How many processes of a machine embed.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    identity: EmbedderIdentity | None = None
    workers: int = 1

    @classmethod
    def of(
        cls, name: str, settings: Mapping[str, Any], dim: int | None = None, *, asks: bool = True
    ) -> EmbedderSpec:
        """Returns an embedder with what its vectors are.

        Args:
            name: `NAME[:MODEL]`, or `package.module:Class`.
            settings: What it takes.
            dim: How many dimensions its vectors have, where that is known.
            asks: Whether a service may be asked for that; the identity is None otherwise.

        Raises:
            ConfigError: it cannot be made.
            EmbedderError: it cannot be used.
        """
        made = load_embedder(name, dim=dim, workers=1, **settings)
        if not asks and not getattr(made, "is_known", True):
            return cls(name, dict(settings))
        identity = made.identity
        with _lock:
            # So that a run in this process does not load it a second time.
            _loaded.setdefault(_key(name, identity.dim, 1, settings), made)
        return cls(name, dict(settings), identity)

    def load(self) -> Embedder:
        """Returns the embedder of this process.

        Raises:
            ConfigError: it cannot be made here.
            EmbedderError: it cannot be used, or it is another one here than where the run began.
        """
        known = self.identity
        dim = None if known is None else known.dim
        found = load_embedder(self.name, dim=dim, workers=self.workers, **self.settings)
        if known is not None and found.identity.fingerprint != known.fingerprint:
            raise EmbedderError(
                f"the embedder {self.name} is {found.identity} in this process, and {known} where "
                "the run began; let all machines have the same model"
            )
        return found


def _made(spec: str, known: Mapping[str, int | None], settings: Mapping[str, Any]) -> Embedder:
    name, model = split_name(spec)
    make = _entry(name).load()
    takes = inspect.signature(make).parameters
    told = {one: value for one, value in known.items() if value is not None and one in takes}
    try:
        found: Embedder = make(model, **told, **settings)
    except TypeError as error:
        refused = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if refused is None or refused[1] not in settings:
            raise
        raise ConfigError(f"the embedder {spec!r} takes no setting {refused[1]!r}") from error
    if known["dim"] is not None and found.dim != known["dim"]:
        raise ConfigError(f"the embedder {spec!r} has {found.dim} dimensions, not {known['dim']}")
    return found


def _key(spec: str, dim: int | None, workers: int | None, settings: Mapping[str, Any]) -> str:
    return json.dumps([spec.strip(), dim, workers, settings], sort_keys=True, default=repr)


def _entry(name: str) -> EntryPoint:
    found = [one for one in registered(GROUP) if one.name == name]
    if len(found) > 1:
        paths = ", ".join(one.value for one in found)
        raise ConfigError(
            f"the embedder {name!r} is registered more than once ({paths}); "
            "uninstall one of the packages, or give the class as package.module:Class"
        )
    if not found:
        raise ConfigError(
            f"the embedder {name!r} is not registered; install contextframe-beam again, so that "
            "its entry points are known"
        )
    return found[0]


_lock = threading.Lock()
_locks: dict[str, threading.Lock] = {}
_loaded: dict[str, Embedder] = {}


def _forget() -> None:
    """Makes a forked process load its own embedders: threads and connections do not survive."""
    global _lock
    _lock = threading.Lock()
    _locks.clear()
    _loaded.clear()


os.register_at_fork(after_in_child=_forget)
