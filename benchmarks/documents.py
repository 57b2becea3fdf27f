"""Makes documents like those of a knowledge base, as JSON Lines: 1.3 KB each, the same every time.

python benchmarks/documents.py OUT_DIR DOCUMENTS FILES
"""

from __future__ import annotations

import itertools
import json
import random
import sys
from pathlib import Path

# fmt: off
_SYLLABLES = ("ba", "cor", "den", "gra", "ka", "lo", "mi", "ne",
              "pi", "ran", "sor", "sto", "tis", "ter", "ul", "vel")
# fmt: on
_WORDS = 20_000
_WORDS_A_DOCUMENT = 150


def write_documents(folder: Path, documents: int, files: int) -> None:
    """Writes `documents` documents into `files` files of about the same size."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(20261101)
    words = ["".join(chance.choices(_SYLLABLES, k=chance.randint(1, 4))) for _ in range(_WORDS)]
    # Word frequencies of natural text (Zipf's law).
    frequencies = list(itertools.accumulate(1 / rank for rank in range(1, _WORDS + 1)))
    for number in range(files):
        first, last = number * documents // files, (number + 1) * documents // files
        with (folder / f"part-{number:04d}.jsonl").open("w") as file:
            for index in range(first, last):
                text = chance.choices(words, cum_weights=frequencies, k=_WORDS_A_DOCUMENT)
                day = f"{chance.randint(1, 12):02d}-{chance.randint(1, 28):02d}"
                document = {
                    "id": f"doc-{index}",
                    "title": " ".join(text[:6]),
                    "content": " ".join(text),
                    "author": {"name": f"user{chance.randint(0, 500)}"},
                    "url": f"https://example.org/d/{index}",
                    "created_at": f"2024-{day}T08:00:00Z",
                    "updated_at": f"2025-{day}T09:30:00Z",
                    "tags": chance.sample(["a", "b", "c", "d", "e", "f"], 2),
                    "parent_id": f"doc-{index // 10}" if index % 10 else None,
                }
                file.write(json.dumps(document) + "\n")


if __name__ == "__main__":
    write_documents(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
