"""Where a dataset is, with what opens the object store there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

StorageOptions = Mapping[str, str] | None


@dataclass(frozen=True)
class Address:
    """A dataset, which need not exist.

    Attributes:
        uri: A folder, or an address such as `s3://bucket/kb.lance`.
        storage_options: Credentials and settings of the object store, by Lance's names for them.
    """

    uri: str
    storage_options: StorageOptions = field(default=None, repr=False)
