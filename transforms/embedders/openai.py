"""`openai:MODEL`: any service that speaks OpenAI's embeddings API.

That is OpenAI itself, and TEI, vLLM, Ollama, llama.cpp, LiteLLM and others at a `url` of their own.
Source: https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.http import HttpClient, HttpRequest, HttpResponse
from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.embedders import EmbedderError, Kind, Vectors
from contextframe_beam.transforms.embedders.judging import RejectedError
from contextframe_beam.transforms.embedders.remote import (
    Answer,
    BatchLimits,
    RemoteEmbedder,
    split_budget,
)
from contextframe_beam.transforms.embedders.tokens import TokenCounter

__all__ = ["OpenAIEmbedder"]

URL = "https://api.openai.com/v1"
#: A request of OpenAI's takes 2,048 texts and 300,000 tokens; others take less.
LIMITS = BatchLimits(texts=256, tokens=100_000, bytes=2 << 20, in_flight=4)

# Dimensions and longest texts of OpenAI's own models.
_DIMS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
_MAX_TOKENS = 8192
_FORMAT = re.compile(r"encoding_?format|base64", re.I)


class OpenAIEmbedder(RemoteEmbedder):
    """A model of OpenAI's embeddings API.

    Args:
        model: The model's name at the service.
        url: Where the service is, up to `/v1`.
        key: The key, best as a reference: env:OPENAI_API_KEY. A service of one's own may need none.
        budget: How much may be sent, by all processes together, as in
            {"per_second": 5, "tokens_per_minute": 1000000}.
        dimensions: How many dimensions to ask for, of a model that can give fewer.
        dim: How many dimensions the vectors have, where that is known; it is asked otherwise.
        max_tokens: The longest text that the model takes, in tokens.
        tokenizer: A tokenizer.json of the model, by which tokens are counted; they are estimated
            without one.
        query_prefix: What is put before a question, such as "query: " for E5 models.
        passage_prefix: What is put before a piece of a document.
        batch_size: Texts a request.
        headers: Sent with each request.
        client: Further settings of the HTTP client, such as `timeout` and `retries`.

    Raises:
        ConfigError: a setting that cannot be, or no key for OpenAI itself.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        url: str | None = None,
        key: str | None = None,
        budget: Mapping[str, Any] | None = None,
        dimensions: int | None = None,
        dim: int | None = None,
        max_tokens: int | None = None,
        tokenizer: str | None = None,
        query_prefix: str = "",
        passage_prefix: str = "",
        batch_size: int = LIMITS.texts,
        headers: Mapping[str, str] | None = None,
        client: Mapping[str, Any] | None = None,
    ) -> None:
        if not model:
            raise ConfigError("say which model: openai:MODEL, as in openai:text-embedding-3-small")
        if batch_size < 1:
            raise ConfigError(f"batch_size is at least 1, not {batch_size}")
        address = (url or URL).rstrip("/").removesuffix("/embeddings")
        if key is None and not headers and address == URL:
            raise ConfigError(f"openai:{model} at {URL} needs a key, as in env:OPENAI_API_KEY")
        requests, tokens = split_budget(budget, f"{address} {model}")
        http = HttpClient.from_config(
            address,
            auth=None if key is None else {"type": "bearer", "token": secrets.referenced(key)},
            budget=requests,
            **{"headers": headers, **(client or {})},
        )
        super().__init__(
            "openai",
            model,
            http,
            BatchLimits(batch_size, LIMITS.tokens, LIMITS.bytes, LIMITS.in_flight),
            dim=dim or dimensions or (_DIMS.get(model) if address == URL else None),
            max_tokens=max_tokens or (_MAX_TOKENS if model in _DIMS else None),
            tokens=tokens,
            parts=(query_prefix, passage_prefix),
        )
        self._dimensions = dimensions
        self._prefixes = {"query": query_prefix, "passage": passage_prefix}
        self._counter = (
            None if tokenizer is None else TokenCounter(tokenizer, f"openai:{model}", "embed")
        )
        self._as_base64 = True

    def count(self, texts: Sequence[str]) -> list[int]:
        """Returns how many tokens each text has with its prefix, or about how many."""
        whole = [self._prefixes["passage"] + text for text in texts]
        return super().count(whole) if self._counter is None else self._counter.counts(whole)

    def request(self, texts: Sequence[str], kind: Kind) -> HttpRequest:
        """Returns what to ask for a batch."""
        body: dict[str, Any] = {
            "model": self.model,
            "input": [self._prefixes[kind] + text for text in texts],
        }
        if self._dimensions is not None:
            body["dimensions"] = self._dimensions
        if self._as_base64:
            # Half the bytes of decimal numbers; OpenAI's own client asks for it too.
            body["encoding_format"] = "base64"
        return HttpRequest("POST", "embeddings", json=body)

    def adapts(self, request: HttpRequest, error: RejectedError) -> bool:
        """Asks for decimal numbers from a service that does not know another format."""
        if "encoding_format" not in request.json or not _FORMAT.search(str(error)):
            return False
        self._as_base64 = False
        return True

    def answer(self, response: HttpResponse, count: int) -> Answer:
        """Returns the vectors in an answer, by their index.

        Raises:
            EmbedderError: it holds something else.
        """
        found = response.json()
        items = found.get("data") if isinstance(found, Mapping) else None
        if not isinstance(items, list) or not all(isinstance(one, Mapping) for one in items):
            raise EmbedderError(
                f"{self._called()}: {response.url} answered {response.status} without vectors "
                f"({response.excerpt()}); check that the url is that of an embeddings API"
            )
        if len(items) != count:
            raise EmbedderError(
                f"{self._called()}: {response.url} answered with {len(items)} vectors for {count} "
                "texts"
            )
        vectors = _table([one.get("embedding") for one in self._in_order(items, response)])
        if vectors is None:
            raise EmbedderError(
                f"{self._called()}: {response.url} answered with vectors that are no rows of "
                f"numbers of one length ({response.excerpt()})"
            )
        return Answer(vectors, _tokens_in(found))

    def _in_order(
        self, items: list[Mapping[str, Any]], response: HttpResponse
    ) -> list[Mapping[str, Any]]:
        indexes = [one.get("index") for one in items]
        # Some services leave the index out, or write 0 everywhere: then the order says it.
        if len(set(map(repr, indexes))) == 1:
            return items
        if {repr(one) for one in indexes} != {repr(number) for number in range(len(items))}:
            raise EmbedderError(
                f"{self._called()}: {response.url} answered with indexes that are not those of "
                f"{len(items)} texts"
            )
        return sorted(items, key=lambda one: int(one["index"]))


def _table(rows: list[Any]) -> Vectors | None:
    """Returns numbers, or base64 of little-endian float32, as rows."""
    try:
        if all(isinstance(row, str) for row in rows):
            return np.stack(
                [np.frombuffer(base64.b64decode(row, validate=True), "<f4") for row in rows]
            )
        table: Vectors = np.array(rows, np.float32)
    except (ValueError, TypeError, binascii.Error):
        return None
    return table if table.ndim == 2 and table.shape[1] else None


def _tokens_in(found: Mapping[str, Any]) -> int | None:
    usage = found.get("usage")
    if isinstance(usage, Mapping):
        for name in ("total_tokens", "prompt_tokens"):
            told = usage.get(name)
            if isinstance(told, int) and told > 0:
                return told
    return None
