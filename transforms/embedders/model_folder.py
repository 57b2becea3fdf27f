"""A folder with a sentence-transformers model as ONNX: which files, and how its vectors are made.

The files; only the first two are required:

    model.onnx or onnx/model.onnx       the network
    tokenizer.json                      its tokenizer
    modules.json                        what follows the network: pooling, normalisation
    1_Pooling/config.json               mean, cls, max or last token
    config_sentence_transformers.json   prefixes of questions and passages, how vectors are compared
    sentence_bert_config.json           the longest text
    tokenizer_config.json, config.json  the same, where that file is missing

Source: the folders that `SentenceTransformer.save` writes, releases 2 to 5.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contextframe_beam.errors import ConfigError

__all__ = ["POOLINGS", "ModelFolder", "read_folder"]

#: How the vectors of tokens become that of a text.
POOLINGS = ("mean", "cls", "max", "lasttoken")
#: The longest text of a model whose folder does not say it, in tokens.
USUAL_MAX_TOKENS = 512

# What releases of sentence-transformers call a pooling.
_POOLING_FLAGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
_METRICS = {None: "cosine", "cosine": "cosine", "dot": "dot", "euclidean": "l2"}
_KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")
# Files beside a network that hold no weights.
_NO_WEIGHTS = frozenset({".json", ".md", ".model", ".onnx", ".py", ".txt"})
_BLOCK = 1 << 20
# A larger number is not a length but a way to write "any".
_ANY_LENGTH = 1_000_000


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What a folder says.

    Attributes:
        model: The file of the network.
        tokenizer: The file of its tokenizer.
        pooling: One of `POOLINGS`.
        normalise: Whether vectors get the length 1.
        metric: How they are compared: cosine, dot or l2.
        query_prefix: What is put before a question.
        passage_prefix: What is put before a piece of a document.
        max_tokens: The longest text, with all that the tokenizer adds to it.
        lower: Whether text is made lower case first.
    """

    model: Path
    tokenizer: Path
    pooling: str
    normalise: bool
    metric: str
    query_prefix: str
    passage_prefix: str
    max_tokens: int
    lower: bool

    @property
    def files(self) -> list[Path]:
        """The files that decide what the vectors are, weights beside the network included."""
        beside = [
            one
            for one in sorted(self.model.parent.iterdir())
            if one.is_file() and one.suffix not in _NO_WEIGHTS and self.mentions(one.name.encode())
        ]
        return [self.model, *beside, self.tokenizer]

    def mentions(self, name: bytes) -> bool:
        """Returns whether a name stands in the network, whose names are plain text."""
        with open(self.model, "rb") as file:
            ahead = b""
            while block := file.read(_BLOCK):
                if name in ahead + block:
                    return True
                ahead = block[-len(name) :]
        return False


def read_folder(path: str) -> ModelFolder:
    """Reads what a folder says about its model.

    Args:
        path: A folder on this machine.

    Raises:
        ConfigError: a file is missing or cannot be read, or the model needs what is not done here.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ConfigError(
            f"onnx:{path}: there is no such folder; give one with model.onnx and tokenizer.json, "
            "on every machine that embeds"
        )
    model = _model(folder)
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        raise ConfigError(f"{folder} has no tokenizer.json; copy it from the model's own folder")
    modules = _modules(folder)
    spoken = _json(folder / "config_sentence_transformers.json") or {}
    metric = _METRICS.get(spoken.get("similarity_fn_name"))
    if metric is None:
        raise ConfigError(
            f"{folder} compares vectors by {spoken['similarity_fn_name']!r}, which no index does; "
            f"use a model with one of {', '.join(filter(None, _METRICS))}"
        )
    prompts = spoken.get("prompts") or {}
    usual = prompts.get(spoken.get("default_prompt_name") or "", "")
    sentences = _json(folder / "sentence_bert_config.json") or {}
    return ModelFolder(
        model=model,
        tokenizer=tokenizer,
        pooling=_pooling(folder, modules),
        # Length plays no part in a cosine, and vectors of one length are compared faster.
        normalise="Normalize" in modules or metric == "cosine",
        metric=metric,
        query_prefix=prompts.get("query", usual),
        passage_prefix=prompts.get("passage") or prompts.get("document") or usual,
        max_tokens=_max_tokens(folder, sentences),
        lower=bool(sentences.get("do_lower_case")),
    )


def _model(folder: Path) -> Path:
    for name in ("model.onnx", "onnx/model.onnx"):
        if (folder / name).is_file():
            return folder / name
    others = sorted(str(one.relative_to(folder)) for one in folder.rglob("*.onnx"))
    found = f" (it has {', '.join(others[:5])}: name the one that is meant so)" if others else ""
    raise ConfigError(
        f"{folder} has neither model.onnx nor onnx/model.onnx{found}; export the model, as with "
        "optimum-cli export onnx"
    )


def _modules(folder: Path) -> dict[str, Path]:
    """Returns what a text goes through, by the name of its class, with its folder."""
    listed = _json(folder / "modules.json")
    if listed is None:
        return {"Normalize": folder}  # a network alone is used the way most are
    found = {one["type"].rpartition(".")[2]: folder / one.get("path", "") for one in listed}
    unknown = [name for name in found if name not in _KNOWN_MODULES]
    if unknown:
        raise ConfigError(
            f"{folder} has the modules {', '.join(unknown)} after its network, which are not run "
            "here; export the model with them inside, so that it has an output sentence_embedding"
        )
    return found


def _pooling(folder: Path, modules: dict[str, Path]) -> str:
    place = modules.get("Pooling", folder / "1_Pooling")
    told = _json(place / "config.json") or {}
    named = told.get("pooling_mode")
    modes = [named] if isinstance(named, str) else []
    modes = modes or [mode for flag, mode in _POOLING_FLAGS.items() if told.get(flag)]
    if len(modes) > 1 or (modes and modes[0] not in POOLINGS):
        raise ConfigError(
            f"{place} pools by {' and '.join(modes)}; known are {', '.join(POOLINGS)}, one of them"
        )
    if told.get("include_prompt") is False:
        raise ConfigError(f"{place} leaves prompts out of the pooling, which is not done here")
    return modes[0] if modes else POOLINGS[0]


def _max_tokens(folder: Path, sentences: dict[str, Any]) -> int:
    told = [
        sentences.get("max_seq_length"),
        (_json(folder / "tokenizer_config.json") or {}).get("model_max_length"),
        (_json(folder / "config.json") or {}).get("max_position_embeddings"),
    ]
    for one in told:
        if isinstance(one, int | float) and 0 < one < _ANY_LENGTH:
            return int(one)
    return USUAL_MAX_TOKENS


def _json(path: Path) -> Any:
    """Returns the JSON of a file, or None without the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}") from error
