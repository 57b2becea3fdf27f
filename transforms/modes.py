"""The modes of a run, and what each of them does with stored rows."""

from __future__ import annotations

from dataclasses import dataclass

from contextframe_beam.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Mode:
    """What a run does with stored rows.

    Attributes:
        name: Its name for users.
        needs_new: Whether the dataset must not exist yet.
        only_adds: Whether it adds rows without looking at stored ones, and never deletes.
        replaces_rows: Whether it replaces the stored rows with its keys, except unchanged ones.
        replaces_all: Whether its rows replace everything that is stored.
        deletes_unseen: Whether it deletes the stored rows of its source that it did not see.
        by_parts: Whether parts of a source may be committed one after the other.
    """

    name: str
    needs_new: bool = False
    only_adds: bool = False
    replaces_rows: bool = False
    replaces_all: bool = False
    deletes_unseen: bool = False
    by_parts: bool = False

    @property
    def reads_all(self) -> bool:
        """Whether it needs all of a source, because anything it does not read is deleted."""
        return self.replaces_all or self.deletes_unseen

    @property
    def goes_on(self) -> bool:
        """Whether it adds to an existing dataset."""
        return not (self.needs_new or self.replaces_all)

    def __str__(self) -> str:
        return self.name


#: All modes, by name.
MODES = {
    mode.name: mode
    for mode in (
        Mode("create", needs_new=True),
        Mode("append", only_adds=True, by_parts=True),
        Mode("overwrite", replaces_all=True),
        Mode("upsert", replaces_rows=True, by_parts=True),
        Mode("mirror", replaces_rows=True, deletes_unseen=True),
    )
}


def mode_of(name: str) -> Mode:
    """Returns the mode with a name.

    Raises:
        ConfigError: the mode is unknown.
    """
    if name not in MODES:
        raise ConfigError(f"mode is {name!r}; choose one of {', '.join(MODES)}")
    return MODES[name]
