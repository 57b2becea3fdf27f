"""What a dataset records of its texts: whose vectors it holds, and how documents were cut.

The commit that brings vectors or chunks brings the record too. What later runs and searches are not
told, they take from it. A dataset may come from strangers, so nothing in its record makes a
process import a class, read a file as a key, or send a key to an address that no user has named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.embedders import EmbedderIdentity

__all__ = ["Cutting", "TextRecord", "recordable"]

#: Settings that are recorded although they are no plain values: a reference, never the key itself.
_KEY = "key"
# Texts that begin so are references to secrets (see `connectors/secrets.py`).
_REFERENCES = ("env:", "file:", "keyring:", "gcp-secret:")
# Embedders that send credentials of the machine where no key is given.
_SIGNS_IN = frozenset({"vertex"})
# What the loader of embedders is told by itself.
_NO_SETTINGS = frozenset({"spec", "dim", "workers"})


@dataclass(frozen=True)
class Cutting:
    """How documents are cut.

    Attributes:
        chunker: `none`, a registered name such as `markdown`, or `package.module:Class`.
        tokens: How long a chunk may be; None for the chunker's own default.
        overlap: How many tokens of the chunk before a chunk repeats at most; likewise.
    """

    chunker: str
    tokens: int | None = None
    overlap: int | None = None

    def __str__(self) -> str:
        tokens = "" if self.tokens is None else f" into chunks of {self.tokens} tokens"
        return f"{self.chunker}{tokens}" + (f", overlap {self.overlap}" if self.overlap else "")


@dataclass(frozen=True)
class TextRecord:
    """What is known of the texts of a dataset, or what a run makes of them.

    Attributes:
        embedder: Whose vectors they have; None without vectors, or where nobody has said it.
        settings: What that embedder took: plain values, and the key as a reference.
        cutting: How documents were cut last; None where nobody has said it.
        made_with: What the last run made chunks with, in hexadecimal digits; "" if unknown.
        stands_for: What now counts as having made chunks that were made with something else: after
            `embed` another embedder counts tokens, and the documents stay as they are.
    """

    embedder: EmbedderIdentity | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    cutting: Cutting | None = None
    made_with: str = ""
    stands_for: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is anything to record."""
        return self != TextRecord()

    def after(self, run: TextRecord) -> TextRecord:
        """Returns what is to be recorded after a run that has made texts in this way."""
        embeds = run.embedder is not None
        return TextRecord(
            run.embedder if embeds else self.embedder,
            run.settings if embeds else self.settings,
            run.cutting or self.cutting,
            run.made_with or self.made_with,
            {**self.stands_for, **run.stands_for},
        )

    def meant_by(self, made_with: str) -> str:
        """Returns what is meant where texts are made with something, in hexadecimal digits."""
        return self.stands_for.get(made_with, made_with)

    def cutting_of(
        self, uri: str, chunker: str | None, tokens: int | None, overlap: int | None
    ) -> Cutting | None:
        """Returns how documents are to be cut: as given, and else as recorded.

        Args:
            uri: The dataset.
            chunker: Its name, if it is given.
            tokens: How long a chunk may be, if it is given.
            overlap: What chunks repeat, if it is given.

        Returns:
            None where nothing is given, and nothing recorded.

        Raises:
            ConfigError: the recorded chunker is a class that nobody has named.
        """
        known = self.cutting
        name = chunker.strip() if chunker is not None else None
        if known is None or (name is not None and name != known.chunker):
            cuts = tokens is not None or overlap is not None
            return Cutting(name or "markdown", tokens, overlap) if name or cuts else None
        if name is None and ":" in known.chunker:
            raise ConfigError(
                f"documents of {uri} are cut by {known.chunker}. No class is imported because a "
                f"dataset names it: name it again with `chunk`, or another chunker"
            )
        return Cutting(
            known.chunker,
            known.tokens if tokens is None else tokens,
            known.overlap if overlap is None else overlap,
        )

    def embedder_of(
        self, uri: str, name: str | None, given: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]] | None:
        """Returns the name and the settings of the embedder: as given, and else as recorded.

        Args:
            uri: The dataset.
            name: Its name, if it is given.
            given: The settings that are given; None counts as not given.

        Returns:
            None where none is given, and none recorded.

        Raises:
            ConfigError: the recorded embedder is a class that nobody has named, or its key would be
                sent to an address that nobody has named.
        """
        given = {one: value for one, value in given.items() if value is not None}
        for one in sorted(_NO_SETTINGS & given.keys()):
            raise ConfigError(f"an embedder has no setting {one!r}, but perhaps `dimensions`")
        known = self.embedder
        if known is None or (name is not None and name.strip() != known.spec):
            return None if name is None else (name.strip(), given)
        if name is None and ":" in known.name:
            raise ConfigError(
                f"the vectors of {uri} were made by {known.spec}. No class is imported because a "
                f"dataset names it: name it again as the embedder"
            )
        recorded = recordable(self.settings)
        if "url" in recorded and "url" not in given:
            _refuse_to_send(uri, known, recorded, given)
        return known.spec, {**recorded, **given}

    def to_json(self) -> str:
        """Returns it as JSON text, the same for the same record."""
        told: dict[str, Any] = {} if self.embedder is None else asdict(self.embedder)
        if self.cutting is not None:
            told["cutting"] = asdict(self.cutting)
        for name in ("settings", "made_with", "stands_for"):
            value = getattr(self, name)
            if value:
                told[name] = dict(value) if isinstance(value, Mapping) else value
        return json.dumps(told, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> TextRecord:
        """Returns what `to_json` wrote, or `EmbedderIdentity.to_json` of an earlier release.

        Raises:
            ConfigError: it is something else.
        """
        try:
            told = json.loads(text)
            cutting = told.get("cutting")
            found = cls(
                EmbedderIdentity.from_json(text) if told.keys() & {"name", "model"} else None,
                dict(told.get("settings", {})),
                None if cutting is None else _cutting_in(cutting),
                _hex(told.get("made_with", "")),
                {_hex(one): _hex(value) for one, value in told.get("stands_for", {}).items()},
            )
        except ConfigError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ConfigError(f"{text!r:.80} is not a record of an embedder ({error!r})") from None
        return found


def recordable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those settings that may stand in a dataset, and be taken from one.

    These are numbers, texts and truths, and the key as a reference. Mappings such as headers, which
    may hold credentials, have to be given each time, and so has a budget.
    """
    return {
        name: value
        for name, value in settings.items()
        if isinstance(value, str | int | float | bool)
        and name not in _NO_SETTINGS
        and (isinstance(value, str) and value.startswith(_REFERENCES)) == (name == _KEY)
    }


def _refuse_to_send(
    uri: str, known: EmbedderIdentity, recorded: Mapping[str, Any], given: Mapping[str, Any]
) -> None:
    if known.name in _SIGNS_IN:
        raise ConfigError(
            f"the embedder {known.spec} of {uri} is recorded to be at {recorded['url']}. "
            "Credentials are not sent there because a dataset says so: give `embed_url` again"
        )
    if _KEY in recorded and _KEY not in given:
        raise ConfigError(
            f"the embedder {known.spec} of {uri} is recorded to be at {recorded['url']}, with the "
            f"key {recorded[_KEY]}. It is not sent there because a dataset says so: give the key "
            "again with `embed_key`, if you know that address"
        )


def _hex(text: Any) -> str:
    return bytes.fromhex(text).hex()


def _cutting_in(told: Mapping[str, Any]) -> Cutting:
    chunker, tokens, overlap = told["chunker"], told.get("tokens"), told.get("overlap")
    numbers_only = all(one is None or type(one) is int for one in (tokens, overlap))
    if not isinstance(chunker, str) or not numbers_only:
        raise ValueError(f"{told!r:.80} does not say how documents are cut")
    return Cutting(chunker, tokens, overlap)
