"""Folders with tiny ONNX models, made here byte by byte: a table of vectors, one for each token.

The bytes are those of the messages of onnx.proto, of which a network needs a handful of fields.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "query", "passage", ":", "a", "b", "c", "d"]
DIM = 4
TABLE = np.random.default_rng(7).normal(size=(len(WORDS), DIM)).astype(np.float32)

_FLOAT, _INT64 = 1, 7


def write_tokenizer(path: Path) -> Path:
    """Writes the tokenizer.json of the words above, which puts [CLS] and [SEP] around a text."""
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding()
    tokenizer.save(str(path))
    return path


def write_folder(
    folder: Path,
    *,
    inputs: tuple[str, ...] = ("input_ids", "attention_mask"),
    output: str = "last_hidden_state",
    dims: int = 3,
    name: str = "model.onnx",
    **files: Any,
) -> Path:
    """Writes a model that gives each token its vector in `TABLE`.

    Args:
        folder: Where.
        inputs: What the network takes; only the first counts.
        output: What its output is called.
        dims: 3: a vector for each token; 2: only that of the first token.
        name: The file of the network.
        **files: JSON files; two underscores in a name stand for a slash.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(_network(inputs, output, dims))
    write_tokenizer(folder / "tokenizer.json")
    for name, content in files.items():
        target = folder / f"{name.replace('__', '/')}.json"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(content))
    return folder


def _network(inputs: tuple[str, ...], output: str, dims: int) -> bytes:
    table = _tensor("table", TABLE)
    made = output if dims == 3 else "all"
    nodes = [_node("Gather", ["table", inputs[0]], made)]
    tensors = [table]
    if dims == 2:
        tensors.append(_tensor("first", np.array(0, np.int64)))
        nodes.append(_node("Gather", [made, "first"], output, axis=1))
    graph = b"".join(_field(1, one) for one in nodes)
    graph += _field(2, b"graph") + b"".join(_field(5, one) for one in tensors)
    graph += b"".join(_field(11, _value(one, _INT64, 2)) for one in inputs)
    graph += _field(12, _value(output, _FLOAT, dims))
    return _number(1, 8) + _field(7, graph) + _field(8, _field(1, b"") + _number(2, 13))


def _node(kind: str, inputs: list[str], output: str, axis: int = 0) -> bytes:
    attribute = _field(1, b"axis") + _number(3, axis) + _number(20, 2)
    return (
        b"".join(_field(1, one.encode()) for one in inputs)
        + _field(2, output.encode())
        + _field(4, kind.encode())
        + _field(5, attribute)
    )


def _tensor(name: str, values: Any) -> bytes:
    kind = _FLOAT if values.dtype == np.float32 else _INT64
    dims = b"".join(_number(1, one) for one in values.shape)
    return dims + _number(2, kind) + _field(8, name.encode()) + _field(9, values.tobytes())


def _value(name: str, kind: int, dims: int) -> bytes:
    shape = b"".join(_field(1, _field(2, f"{name}_{n}".encode())) for n in range(dims))
    return _field(1, name.encode()) + _field(2, _field(1, _number(1, kind) + _field(2, shape)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
