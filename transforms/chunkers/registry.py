"""Chunkers by name, and what tells the chunks of one from those of another.

A chunker is `none` (documents stay whole), an entry point of the group `contextframe.chunkers` such
as `markdown`, or `package.module:Class` of one's own.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from typing import Any, Protocol, runtime_checkable

import xxhash

from contextframe_beam.errors import ConfigError, ContextFrameError, nearest
from contextframe_beam.frames.document import Chunk, Document
from contextframe_beam.frames.fingerprint import code_versions
from contextframe_beam.lazy import named, registered
from contextframe_beam.transforms.chunkers.counting import TokenCounter

__all__ = ["GROUP", "NONE", "Chunker", "chunker_identity", "chunker_names", "load_chunker"]

#: The entry points of chunkers: each is a class.
GROUP = "contextframe.chunkers"
#: The name that leaves documents whole.
NONE = "none"

# What a counter says of these tells how it counts: words, names, numbers, code, other scripts.
_SAMPLES = (
    "",
    "a",
    "The quick brown fox jumps over the lazy dog, unbelievably.",
    "def get_user_by_id(userId: int) -> Optional[User]:\n    return self._users[userId]\n\n",
    "3.14159 2026-11-29T01:02:03Z 0xDEADBEEF 1,234,567",
    "https://example.org/a/b?c=d&e=%20f#g",
    "Größe Ünïcødé \u0437\u0434\u0440\u0430\u0432\u0441\u0442\u0432\u0443\u0439\u0442\u0435 "
    "\u6a5f\u68b0\u5b66\u7fd2 \u0645\u0631\u062d\u0628\u0627 \U0001f44d\U0001f3fd",
)


@runtime_checkable
class Chunker(Protocol):
    """Cuts documents into chunks.

    A class of one's own may take `tokens`, `overlap` and `counter` (a `TokenCounter`) in its
    constructor; it is given those that it names. Its attribute `version` says when it makes other
    chunks of the same document than before; without one, a change of its source says so.
    """

    def chunk(self, document: Document) -> list[Chunk]:
        """Returns the chunks of a document, in order.

        Raises:
            ChunkError: the document cannot be cut.
        """


def chunker_names() -> list[str]:
    """Returns the names of all chunkers, that of no chunker included."""
    return sorted({NONE, *_registered()})


def load_chunker(
    spec: str,
    *,
    tokens: int | None = None,
    overlap: int | None = None,
    counter: TokenCounter | None = None,
) -> Chunker | None:
    """Returns the chunker of a name; None for `none`, which leaves documents whole.

    Args:
        spec: `none`, a registered name such as `markdown`, or `package.module:Class`.
        tokens: How long a chunk may be; the chunker's own default when it is None.
        overlap: How many tokens of the chunk before a chunk repeats at most; likewise.
        counter: Who counts: the embedder, if there is one.

    Raises:
        ConfigError: there is no such chunker, it does not take what was given, or chunks would be
            longer than the embedder reads.
    """
    name = spec.strip()
    if name == NONE:
        given = {"tokens": tokens, "overlap": overlap}
        for setting, value in given.items():
            if value is not None:
                raise ConfigError(f"{setting} says nothing without a chunker; name one or leave it")
        return None
    found = _class_of(name)
    arguments = _arguments(found, name, tokens, overlap, counter)
    try:
        chunker = found(**arguments)
    except ContextFrameError:
        raise
    except Exception as error:  # what an author's class raises
        raise ConfigError(
            f"the chunker {name} cannot be made: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(chunker, Chunker):
        raise ConfigError(f"{name} is not a chunker: it has no method chunk(document)")
    _check_longest(getattr(chunker, "tokens", tokens), counter)
    return chunker


def chunker_identity(chunker: Chunker | None) -> bytes:
    """Returns 16 bytes that change when a chunker may make other chunks of the same document.

    They are made of its class, its `version` (else the source of the class and of those that it is
    based on), its attributes `settings` (a mapping of JSON values), `tokens` and `overlap`, and how
    its `counter` counts.
    """
    if chunker is None:
        return xxhash.xxh3_128_digest(NONE.encode())
    cls = type(chunker)
    counter = getattr(chunker, "counter", None)
    settings = getattr(chunker, "settings", {})
    told = [
        f"{cls.__module__}:{cls.__qualname__}",
        code_versions(cls),
        dict(settings) if isinstance(settings, Mapping) else {},
        getattr(chunker, "tokens", None),
        getattr(chunker, "overlap", None),
        list(counter.count(_SAMPLES)) if isinstance(counter, TokenCounter) else None,
    ]
    return xxhash.xxh3_128_digest(json.dumps(told, sort_keys=True, default=repr).encode())


def _registered() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for entry in registered(GROUP):
        found.setdefault(entry.name, []).append(entry)
    return found


def _class_of(name: str) -> type[Any]:
    known = _registered()
    if ":" in name:
        path = name
    elif name not in known:
        names = sorted({NONE, *known})
        raise ConfigError(
            f"there is no chunker {name!r}{nearest(name, names)} (there are: {', '.join(names)}); "
            "one of your own is given as package.module:Class"
        )
    elif len(known[name]) > 1:
        paths = ", ".join(sorted(entry.value for entry in known[name]))
        raise ConfigError(
            f"the chunker {name!r} is registered more than once ({paths}); uninstall one of the "
            "packages, or give the class as package.module:Class"
        )
    else:
        path = known[name][0].value
    found = named(path, "chunker")
    if not inspect.isclass(found) or not callable(getattr(found, "chunk", None)):
        raise ConfigError(f"{path} is not a chunker: give a class with the method chunk(document)")
    return found


def _arguments(
    cls: type[Any], name: str, tokens: int | None, overlap: int | None, counter: object
) -> dict[str, Any]:
    """Returns those arguments that a class takes; what the user gave must be among them."""
    taken = inspect.signature(cls).parameters.values()
    names = {one.name for one in taken if one.kind is not inspect.Parameter.POSITIONAL_ONLY}
    takes_all = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken)
    given = {"tokens": tokens, "overlap": overlap, "counter": counter}
    arguments = {key: value for key, value in given.items() if value is not None}
    for key in sorted(arguments.keys() - names):
        if takes_all:
            continue
        if key != "counter":
            raise ConfigError(
                f"the chunker {name} has no setting {key!r}; leave it out, or let the constructor "
                f"of the class take {key}"
            )
        del arguments[key]
    default = getattr(inspect.signature(cls).parameters.get("tokens"), "default", None)
    longest = getattr(counter, "max_tokens", None)
    if tokens is None and isinstance(default, int) and isinstance(longest, int):
        arguments["tokens"] = min(default, longest)
    return arguments


def _check_longest(tokens: object, counter: object) -> None:
    longest = getattr(counter, "max_tokens", None)
    if isinstance(longest, int) and isinstance(tokens, int) and tokens > longest:
        raise ConfigError(
            f"the embedder reads {longest} tokens of a text, so chunks of {tokens} would be cut "
            f"silently; give {longest} tokens at most"
        )
