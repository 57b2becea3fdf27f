"""`vertex:MODEL`: text embedding models of Google's Vertex AI, by their REST form.

Source: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.http import HttpClient, HttpRequest, HttpResponse
from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.embedders import EmbedderError, Kind
from contextframe_beam.transforms.embedders.remote import (
    Answer,
    BatchLimits,
    RemoteEmbedder,
    split_budget,
)

__all__ = ["VertexEmbedder"]

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
#: A request takes 250 texts and 20,000 tokens; more tokens are refused.
LIMITS = BatchLimits(texts=250, tokens=20_000, bytes=2 << 20, in_flight=4)
#: The longest text, in tokens; what is beyond would be cut off without a word.
MAX_TOKENS = 2048

# Gemini's models take one text a request.
_ONE_AT_A_TIME = re.compile(r"gemini-embedding")
_TASKS = {"passage": "RETRIEVAL_DOCUMENT", "query": "RETRIEVAL_QUERY"}


class VertexEmbedder(RemoteEmbedder):
    """A text embedding model of Vertex AI.

    Args:
        model: The model's name, such as text-embedding-005.
        project: The Google Cloud project.
        location: The region.
        url: Another address than `https://LOCATION-aiplatform.googleapis.com/v1`.
        key: The JSON key of a service account as a reference, such as file:PATH; the application
            default credentials of the machine by default.
        budget: How much may be sent, by all processes together, as in
            {"per_minute": 600, "tokens_per_minute": 1000000}.
        dimensions: How many dimensions to ask for, where the model can give fewer.
        dim: How many dimensions the vectors have, where that is known; it is asked otherwise.
        max_tokens: The longest text that the model takes, in tokens.
        batch_size: Texts a request.
        client: Further settings of the HTTP client, such as `timeout` and `retries`.

    Raises:
        ConfigError: a setting that cannot be or is missing.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        project: str | None = None,
        location: str = "us-central1",
        url: str | None = None,
        key: str | None = None,
        budget: Mapping[str, Any] | None = None,
        dimensions: int | None = None,
        dim: int | None = None,
        max_tokens: int = MAX_TOKENS,
        batch_size: int | None = None,
        client: Mapping[str, Any] | None = None,
    ) -> None:
        if not model:
            raise ConfigError("say which model: vertex:MODEL, as in vertex:text-embedding-005")
        if not project:
            raise ConfigError(f"vertex:{model} needs project, the Google Cloud project that pays")
        most = 1 if _ONE_AT_A_TIME.match(model) else LIMITS.texts
        address = (url or f"https://{location}-aiplatform.googleapis.com/v1").rstrip("/")
        requests, tokens = split_budget(budget, f"{address} {project} {model}")
        auth: dict[str, Any] = {"type": "google", "scopes": [SCOPE]}
        if key is not None:
            auth["credentials"] = secrets.referenced(key)
        super().__init__(
            "vertex",
            model,
            HttpClient.from_config(address, auth=auth, budget=requests, **(client or {})),
            BatchLimits(batch_size or most, LIMITS.tokens, LIMITS.bytes, LIMITS.in_flight),
            dim=dim or dimensions,
            max_tokens=max_tokens,
            tokens=tokens,
        )
        self._path = (
            f"projects/{project}/locations/{location}/publishers/google/models/{model}:predict"
        )
        self._dimensions = dimensions

    def request(self, texts: Sequence[str], kind: Kind) -> HttpRequest:
        """Returns what to ask for a batch."""
        # Without autoTruncate a text that is too long is refused, not cut off.
        parameters: dict[str, Any] = {"autoTruncate": False}
        if self._dimensions is not None:
            parameters["outputDimensionality"] = self._dimensions
        instances = [{"content": text, "task_type": _TASKS[kind]} for text in texts]
        return HttpRequest(
            "POST", self._path, json={"instances": instances, "parameters": parameters}
        )

    def answer(self, response: HttpResponse, count: int) -> Answer:
        """Returns the vectors in an answer, with the tokens that Google counted.

        Raises:
            EmbedderError: it holds something else.
        """
        found = response.json()
        items = found.get("predictions") if isinstance(found, Mapping) else None
        try:
            embeddings = [one["embeddings"] for one in items or ()]
            vectors = np.array([one["values"] for one in embeddings], np.float32)
            statistics = [one.get("statistics") or {} for one in embeddings]
        except (TypeError, KeyError, ValueError, AttributeError):
            embeddings, statistics, vectors = [], [], np.zeros((0, 0), np.float32)
        if len(embeddings) != count or vectors.ndim != 2:
            raise EmbedderError(
                f"{self._called()}: {response.url} answered with {len(embeddings)} vectors for "
                f"{count} texts ({response.excerpt()}); check the model"
            )
        cut = {
            number: f"{self._called()} cut the text off; it reads {self.max_tokens} tokens"
            for number, one in enumerate(statistics)
            if one.get("truncated")
        }
        counted = [one.get("token_count") for one in statistics]
        known = [one for one in counted if isinstance(one, int | float)]
        tokens = int(sum(known)) if known and len(known) == count else None
        return Answer(vectors, tokens, cut)
