"""What embedders behind a service share: batches, several in flight, and whose fault an error is.

A batch that is too much for the service is halved, and what it takes is remembered. A text that is
too much by itself is an error of that text. What no other text would change, such as refused
credentials or a model that is not there, ends everything.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from contextframe_beam.connectors.http import HttpClient, HttpRequest, HttpResponse, Wait
from contextframe_beam.connectors.http.judges import usual
from contextframe_beam.embedders import (
    EmbedderError,
    EmbedderIdentity,
    EmbedderRefusedError,
    EmbeddingError,
    Kind,
    Vectors,
)
from contextframe_beam.errors import ConnectorError
from contextframe_beam.transforms.embedders.batching import BaseEmbedder, Piece, normalised
from contextframe_beam.transforms.embedders.fingerprint import fingerprint
from contextframe_beam.transforms.embedders.token_budget import TokenBudget
from contextframe_beam.transforms.embedders.tokens import estimated_tokens, valid_text

__all__ = ["Answer", "BatchLimits", "RemoteEmbedder", "split_budget"]

_PROBE = "How many dimensions does a vector have?"
# Services say in their own words that a request is too much; llama.cpp with 500, and OpenAI with
# 429 where one request needs more than a minute's tokens.
_TOO_MUCH = re.compile(
    r"too (?:many|much|long|large)|(?:max\w*|longest) (?:context|input|sequence|request)"
    r"|context[ _]length|token[ _](?:count|limit)|max\w*[ _](?:\w+[ _])?tokens"
    r"|exceed\w*\W(?:\S+ ){0,6}?(?:tokens?|length|limit|size)|less than \d+ tokens"
    r"|batch[ _]size|array too long|longer than|at most \d+|maximum of \d+|up to \d+",
    re.I,
)
_TOO_MUCH_AT_ONCE = re.compile(r"request too large", re.I)
# The limit that was hit is one of texts, not of tokens.
_OF_TEXTS = re.compile(r"batch[ _]size|array|inputs|instances|items|texts|requests", re.I)
_NO_QUOTA = re.compile(
    r"insufficient[ _](?:quota|balance|funds|credit)|billing|exceeded your current quota"
    r"|credit balance|out of credits?",
    re.I,
)
_TELLING = 4096


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How much goes into one request, and how many requests are under way at the same time.

    Attributes:
        texts: Texts a request.
        tokens: Tokens a request, as they are estimated.
        bytes: Bytes of text a request, in UTF-8.
        in_flight: Requests at the same time, for each call.
    """

    texts: int
    tokens: int
    bytes: int
    in_flight: int


@dataclass(frozen=True)
class Answer:
    """What a service made of a batch.

    Attributes:
        vectors: One for each text, in order.
        tokens: What the texts have, as the service counts; None where it does not say.
        errors: Texts that it did not embed whole, by their place in the batch.
    """

    vectors: Vectors
    tokens: int | None = None
    errors: Mapping[int, str] = field(default_factory=dict)


class TooMuchError(EmbeddingError):
    """A request that is more than the service takes at once."""


class RejectedError(EmbeddingError):
    """A request that the service does not take, for a reason of its own."""


class RemoteEmbedder(BaseEmbedder):
    """An embedder behind a service; a service adds `request` and `answer`.

    Args:
        name: Its registered name.
        model: Its model.
        client: What sends the requests.
        limits: How much goes into one of them.
        dim: How many dimensions its vectors have; None to ask when it is needed.
        max_tokens: The longest text that it takes; None where nobody knows.
        tokens: The budget of tokens, if there is one.
        parts: What tells its vectors from others of the same model, for the fingerprint.
    """

    def __init__(
        self,
        name: str,
        model: str,
        client: HttpClient,
        limits: BatchLimits,
        *,
        dim: int | None,
        max_tokens: int | None,
        tokens: TokenBudget | None,
        parts: Sequence[object] = (),
    ) -> None:
        self.name = name
        self.model = model
        self.client = client
        self._limits = limits if tokens is None else _within(limits, tokens)
        self._dim = dim
        self._max_tokens = max_tokens
        self._tokens = tokens
        self._parts = tuple(parts)
        self._works = False
        self._lock = threading.Lock()

    @property
    def identity(self) -> EmbedderIdentity:
        """What makes its vectors comparable; the service is asked for the dimension if need be."""
        with self._lock:
            if self._dim is None:
                self._dim = int(self._probe("query").vectors.shape[1])
        return EmbedderIdentity(
            self.name,
            self.model,
            self._dim,
            "cosine",
            True,
            fingerprint(self.name, self.model, self._dim, *self._parts),
        )

    @property
    def dim(self) -> int:
        """How many numbers a vector has."""
        return self.identity.dim if self._dim is None else self._dim

    @property
    def max_tokens(self) -> int | None:
        """The longest text that it takes, where that is known."""
        return self._max_tokens

    def count(self, texts: Sequence[str]) -> list[int]:
        """Returns about how many tokens each text has; rather more than too few."""
        return [estimated_tokens(text) for text in texts]

    def request(self, texts: Sequence[str], kind: Kind) -> HttpRequest:
        """Returns what to ask for a batch."""
        raise NotImplementedError

    def answer(self, response: HttpResponse, count: int) -> Answer:
        """Returns the vectors in an answer.

        Raises:
            EmbedderError: they are not those of `count` texts.
        """
        raise NotImplementedError

    def adapts(self, request: HttpRequest, error: RejectedError) -> bool:
        """Tells whether the next request is put in another way, since this one is not taken."""
        return False

    def pieces(self, texts: Sequence[str], kind: Kind) -> Iterator[Piece]:
        """Yields the vectors of texts, a batch as soon as it is there."""
        batches = list(self._batches(range(len(texts)), texts))
        if len(batches) == 1:
            yield from self._embedded(batches[0], texts, kind)
            return
        stop = threading.Event()

        def embed(batch: list[int]) -> list[Piece]:
            if stop.is_set():
                return []
            try:
                return list(self._embedded(batch, texts, kind))
            except BaseException:
                stop.set()  # no other thread begins another batch
                raise

        with ThreadPoolExecutor(min(self._limits.in_flight, max(1, len(batches)))) as threads:
            under_way = [threads.submit(embed, batch) for batch in batches]
            failed: BaseException | None = None
            try:
                for future in as_completed(under_way):
                    # What was under way when one failed is paid for, so it is waited for.
                    error = future.exception()
                    failed = failed or error
                    if error is None:
                        yield from future.result()
            finally:
                stop.set()
            if failed is not None:
                raise failed

    def _batches(self, places: Sequence[int], texts: Sequence[str]) -> Iterator[list[int]]:
        limits = self._limits
        batch: list[int] = []
        tokens = size = 0
        for place in places:
            more = self.count([texts[place]])[0]
            longer = len(texts[place].encode("utf-8", "replace"))
            full = (
                len(batch) >= limits.texts
                or tokens + more > limits.tokens
                or size + longer > limits.bytes
            )
            if batch and full:
                yield batch
                batch, tokens, size = [], 0, 0
            batch.append(place)
            tokens += more
            size += longer
        if batch:
            yield batch

    def _embedded(self, batch: list[int], texts: Sequence[str], kind: Kind) -> Iterator[Piece]:
        """Yields the vectors of a batch, which is halved as long as it is too much."""
        # What was learnt since the batch was put together.
        smaller = list(self._batches(batch, texts))
        if len(smaller) > 1:
            for one in smaller:
                yield from self._embedded(one, texts, kind)
            return
        sent = [valid_text(texts[place]) for place in batch]
        requests = [0]
        try:
            answer = self._asked(sent, kind, requests)
        except RejectedError as error:
            self._check_it_works(error)
            yield from self._parted(batch, texts, kind, error, requests[0])
        except TooMuchError as error:
            yield from self._parted(batch, texts, kind, error, requests[0])
        else:
            wrong = {batch[number]: EmbeddingError(told) for number, told in answer.errors.items()}
            tokens = sum(self.count(sent)) if answer.tokens is None else answer.tokens
            yield Piece(batch, answer.vectors, wrong, tokens, requests[0])

    def _parted(
        self,
        batch: list[int],
        texts: Sequence[str],
        kind: Kind,
        error: EmbeddingError,
        requests: int,
    ) -> Iterator[Piece]:
        """Yields the vectors of the halves of a batch; a single text has none."""
        nothing = np.zeros((1, self.dim), np.float32)
        if len(batch) == 1:
            told = EmbeddingError(str(error))
            yield Piece(batch, nothing, {batch[0]: told}, 0, requests)
            return
        yield Piece([], nothing[:0], requests=requests)
        half = len(batch) // 2
        # The shorter ones first: they are what the service takes, if it takes any.
        parts = [list(self._embedded(part, texts, kind)) for part in (batch[:half], batch[half:])]
        for pieces in parts:
            yield from pieces
        # Where both halves go through, it was too much together: so much is not sent again.
        if isinstance(error, TooMuchError) and all(
            len(pieces) == 1 and not pieces[0].errors for pieces in parts
        ):
            self._learn([texts[place] for place in batch[half:]], str(error))

    def _asked(self, texts: Sequence[str], kind: Kind, requests: list[int]) -> Answer:
        """Sends a batch, once the budget allows it, and returns its vectors at length 1.

        Raises:
            TooMuchError: it is more than the service takes.
            RejectedError: the service does not take it.
            EmbedderError: nothing can be embedded.
        """
        while True:
            request = self.request(texts, kind)
            try:
                return self._sent(request, texts, requests)
            except RejectedError as error:
                if not self.adapts(request, error):
                    raise

    def _sent(self, request: HttpRequest, texts: Sequence[str], requests: list[int]) -> Answer:
        estimated = sum(self.count(texts))
        if self._tokens is not None:
            self._tokens.take(estimated)

        def judge(response: HttpResponse) -> Wait | Exception | None:
            requests[0] += 1
            return self._judged(response)

        try:
            response = self.client.send(replace(request, safe_to_repeat=True, judge=judge))
        except ConnectorError as error:
            raise EmbedderError(f"{self._called()}: {error}") from error
        answer = self.answer(response, len(texts))
        self._works = True
        if self._tokens is not None and answer.tokens is not None and answer.tokens > estimated:
            self._tokens.take(answer.tokens - estimated)
        return replace(answer, vectors=normalised(self._rows(answer.vectors, len(texts), response)))

    def _rows(self, vectors: Vectors, count: int, response: HttpResponse) -> Vectors:
        if vectors.ndim != 2 or len(vectors) != count:
            raise EmbedderError(
                f"{self._called()}: {response.url} answered with vectors of the shape "
                f"{vectors.shape} for {count} texts"
            )
        if self._dim is not None and vectors.shape[1] != self._dim:
            raise EmbedderError(
                f"{self._called()} gave vectors of {vectors.shape[1]} dimensions, not {self._dim}; "
                "is it another model under the same name?"
            )
        return vectors

    def _judged(self, response: HttpResponse) -> Wait | Exception | None:
        """Says what an answer means, before anything is asked again."""
        status = response.status
        if status < 400:
            return usual(response) or _cut_off(response)
        text = response.body[:_TELLING].decode("utf-8", "replace")
        told = f"{self._called()}: {response.url} answered {status} ({response.excerpt()})"
        if status in (401, 402) or (status in (403, 429) and _NO_QUOTA.search(text)):
            return EmbedderRefusedError(
                f"{told}; check the key, and what its account may do and has left"
            )
        if status == 413 or (status == 429 and _TOO_MUCH_AT_ONCE.search(text)):
            return TooMuchError(told)
        if status in (400, 422, 500) and _TOO_MUCH.search(text):
            return TooMuchError(told)
        verdict = usual(response)
        if verdict is not None or status in (408, 425, 429) or status >= 500:
            return verdict
        if status in (400, 422):
            return RejectedError(told)
        if status == 403:
            return EmbedderRefusedError(f"{told}; check the key, and what its account may do")
        return EmbedderError(f"{told}; check the url and the model")

    def _check_it_works(self, error: RejectedError) -> None:
        """Asks for a text that any service takes, unless one has been embedded before.

        Raises:
            EmbedderError: it does not take that either, so it is not the fault of a text.
        """
        if self._works:
            return
        self._probe("passage")

    def _probe(self, kind: Kind) -> Answer:
        try:
            return self._asked([_PROBE], kind, [0])
        except EmbeddingError as error:
            raise EmbedderError(f"{error}; check the model and the settings") from error

    def _learn(self, taken: Sequence[str], told: str) -> None:
        """Remembers how much the service took at once, where more was too much."""
        with self._lock:
            limits = self._limits
            if _OF_TEXTS.search(told):
                self._limits = replace(limits, texts=min(limits.texts, len(taken)))
            else:
                tokens = sum(self.count(taken))
                self._limits = replace(limits, tokens=min(limits.tokens, tokens))

    def _called(self) -> str:
        return f"the embedder {self.name}:{self.model}"


def split_budget(
    budget: Mapping[str, Any] | None, scope: str
) -> tuple[dict[str, Any] | None, TokenBudget | None]:
    """Returns the settings of the budget of requests, and the budget of tokens.

    Args:
        budget: What `Budget.from_config` takes, with `tokens_per_minute` beside it.
        scope: What they are for, unless they have a name.

    Raises:
        ConfigError: a number of tokens that cannot be.
    """
    rest = dict(budget or {})
    tokens = rest.pop("tokens_per_minute", None)
    if tokens is None:
        return rest or None, None
    counted = TokenBudget(tokens, str(rest.get("name") or scope), rest.get("redis"))
    return (rest if rest.keys() - {"name", "redis"} else None), counted


def _within(limits: BatchLimits, tokens: TokenBudget) -> BatchLimits:
    return replace(limits, tokens=min(limits.tokens, tokens.per_minute))


def _cut_off(response: HttpResponse) -> Wait | None:
    """Asks again for an answer whose JSON ends too early, whatever length it stated."""
    try:
        response.json()
    except ConnectorError as error:
        if "is cut off" in str(error) or "is empty" in str(error):
            return Wait(reason="a body that ends in the middle")
    return None
