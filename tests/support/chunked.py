"""Documents with chunks for the tests, and what must hold of them in every version."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.frames.record import uuid_of
from contextframe_beam.store.state import DOCUMENTS


def chunked(
    name: Any, count: int, text: str = "text", *, noise: float = 0.0, **fields: Any
) -> list[FrameRecord]:
    """Returns a document and its chunks, each with the state of the document in its text.

    Args:
        name: Its id is `doc:{name}`.
        count: How many chunks it has.
        text: The state that it is in.
        noise: What is added to the vectors.
        **fields: Further arguments of the document's record.
    """
    unique_id = f"doc:{name}"
    given = dict(fields)
    document = FrameRecord(f"{text} {name}", unique_id=unique_id, **given)
    own = {"timestamp": given.get("timestamp"), "parent": uuid_of(unique_id), "embedder": "e1"}
    parts = [
        FrameRecord(
            f"{text} {name} {number}",
            {"position": number, "title": f"{name} > {number}"},
            unique_id=f"{unique_id}#chunk={number}",
            vector=[number + noise, 1.0, 0.0, 0.0],
            **own,
        )
        for number in range(count)
    ]
    return [document, *parts]


def chunks_in(to: Path | str, version: int | None = None) -> dict[str, int]:
    """Returns how many chunks each document has, having checked that each is its own.

    Raises:
        AssertionError: a chunk has no document, is of another state of it, or is there twice.
    """
    dataset = FrameDataset.open(str(to), version=version)
    if "x_parent" not in dataset.schema.names:
        return {}
    columns = ["uuid", "uri", "text_content", "x_parent", "x_origin", "x_digest"]
    rows = dataset.lance.to_table(columns=columns, filter=DOCUMENTS).to_pylist()
    keys = Counter(row["uuid"] for row in rows)
    doubled = {key for key, number in keys.items() if number > 1}
    assert not doubled, f"version {dataset.version} holds {doubled} twice"
    documents = {
        bytes.fromhex(row["uuid"].replace("-", "")): row for row in rows if row["x_parent"] is None
    }
    found = {str(row["uri"]).removeprefix("doc:"): 0 for row in documents.values()}
    for row in rows:
        if row["x_parent"] is None:
            continue
        document = documents.get(row["x_parent"])
        assert document is not None, f"version {dataset.version}: {row['uri']} is an orphan"
        assert row["text_content"].startswith(f"{document['text_content']} "), (
            f"version {dataset.version}: {row['uri']} is of another state of its document"
        )
        assert row["x_origin"] in (None, document["x_digest"])
        found[str(document["uri"]).removeprefix("doc:")] += 1
    return found
