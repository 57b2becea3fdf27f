"""The common part of embedders that use a service: batches in flight, and the meaning of errors.

A batch that is too much for the service is halved, and what it takes is remembered. A text that is
too much by itself is an error of that text. What no other text would change, such as refused
credentials or a model that is not there, ends everything.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from contextframe_beam.connectors.http import (
    Budget,
    HttpClient,
    HttpRequest,
    HttpResponse,
    Limit,
    Wait,
)
from contextframe_beam.errors import ConfigError, ConnectorError
from contextframe_beam.frames.embedders import (
    EmbedderError,
    EmbedderIdentity,
    EmbeddingError,
    Kind,
    Vectors,
)
from contextframe_beam.frames.fingerprint import fingerprint
from contextframe_beam.transforms.embedders.batching import BaseEmbedder, Piece, normalised
from contextframe_beam.transforms.embedders.judging import RejectedError, TooMuchError, judged
from contextframe_beam.transforms.embedders.tokens import estimated_tokens, valid_text

__all__ = ["Answer", "BatchLimits", "RemoteEmbedder", "TokenBudget", "split_budget"]

# What a budget of tokens counts is a thousandth of the tokens of a minute.
_UNITS = 1000
_LEAST = 1000

_PROBE = "How many dimensions does a vector have?"


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


@dataclass(frozen=True)
class _Call:
    """The texts of one call, with what is needed of each again and again.

    Attributes:
        texts: The texts.
        kind: What they are.
        tokens: How many tokens each has, about.
    """

    texts: Sequence[str]
    kind: Kind
    tokens: Sequence[int]


class RemoteEmbedder(BaseEmbedder):
    """An embedder that uses a service; subclasses add `request` and `answer`.

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
    def is_known(self) -> bool:
        """Whether it can say what its vectors are without asking the service."""
        return self._dim is not None

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
        """Returns whether the next request is put in another way, since this one is not taken."""
        return False

    def pieces(self, texts: Sequence[str], kind: Kind) -> Iterator[Piece]:
        """Yields the vectors of texts, a batch as soon as it is there."""
        call = _Call(texts, kind, self.count(texts))
        batches = list(self._batches(range(len(texts)), call))
        if len(batches) == 1:
            yield from self._embedded(batches[0], call)
            return
        stop = threading.Event()

        def embed(batch: list[int]) -> tuple[list[Piece], BaseException | None]:
            done: list[Piece] = []
            try:
                if not stop.is_set():
                    done.extend(self._embedded(batch, call))
            except BaseException as error:
                stop.set()  # no other thread begins another batch
                return done, error
            return done, None

        with ThreadPoolExecutor(min(self._limits.in_flight, max(1, len(batches)))) as threads:
            under_way = [threads.submit(embed, batch) for batch in batches]
            failed: BaseException | None = None
            try:
                for future in as_completed(under_way):
                    # What was under way when one failed is paid for, so it is waited for.
                    done, error = future.result()
                    failed = failed or error
                    yield from done
            finally:
                stop.set()
            if failed is not None:
                raise failed

    def _batches(self, places: Sequence[int], call: _Call) -> Iterator[list[int]]:
        limits = self._limits
        batch: list[int] = []
        tokens = size = 0
        for place in places:
            more = call.tokens[place]
            longer = len(call.texts[place].encode("utf-8", "replace"))
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

    def _embedded(self, batch: list[int], call: _Call) -> Iterator[Piece]:
        """Yields the vectors of a batch, which is halved as long as it is too much."""
        # What was learnt since the batch was put together.
        smaller = list(self._batches(batch, call))
        if len(smaller) > 1:
            for one in smaller:
                yield from self._embedded(one, call)
            return
        sent = [valid_text(call.texts[place]) for place in batch]
        tokens = sum(call.tokens[place] for place in batch)
        requests = [0]
        try:
            answer = self._asked(sent, call.kind, tokens, requests)
        except (RejectedError, TooMuchError) as error:
            if isinstance(error, RejectedError) or len(batch) == 1:
                self._check_it_works()
            yield from self._parted(batch, call, error, requests[0])
        else:
            wrong = {batch[number]: EmbeddingError(told) for number, told in answer.errors.items()}
            yield Piece(batch, answer.vectors, wrong, answer.tokens or tokens, requests[0])

    def _parted(
        self, batch: list[int], call: _Call, error: RejectedError | TooMuchError, requests: int
    ) -> Iterator[Piece]:
        """Yields the vectors of the halves of a batch; a single text has none."""
        nothing = np.zeros((1, self.dim), np.float32)
        if len(batch) == 1:
            yield Piece(batch, nothing, {batch[0]: EmbeddingError(str(error))}, 0, requests)
            return
        yield Piece([], nothing[:0], requests=requests)
        half = len(batch) // 2
        are_whole = True
        for part in (batch[:half], batch[half:]):
            pieces = 0
            for piece in self._embedded(part, call):
                pieces += 1
                are_whole = are_whole and not piece.errors
                yield piece
            are_whole = are_whole and pieces == 1
        # Where both halves go through, it was too much together: so much is not sent again.
        if are_whole and isinstance(error, TooMuchError):
            self._learn(len(part), sum(call.tokens[place] for place in part), error)

    def _asked(self, texts: Sequence[str], kind: Kind, tokens: int, requests: list[int]) -> Answer:
        """Sends a batch, once the budget allows it, and returns its vectors at length 1.

        Args:
            texts: The batch.
            kind: What its texts are.
            tokens: How many tokens it has, about.
            requests: A number to which the requests that it takes are added.

        Raises:
            TooMuchError: it is more than the service takes.
            RejectedError: the service does not take it.
            EmbedderError: nothing can be embedded.
        """
        while True:
            request = self.request(texts, kind)
            try:
                return self._sent(request, len(texts), tokens, requests)
            except RejectedError as error:
                if not self.adapts(request, error):
                    raise

    def _sent(self, request: HttpRequest, count: int, tokens: int, requests: list[int]) -> Answer:
        if self._tokens is not None:
            self._tokens.take(tokens)

        def judge(response: HttpResponse) -> Wait | Exception | None:
            requests[0] += 1
            return judged(response, self._called())

        try:
            response = self.client.send(replace(request, safe_to_repeat=True, judge=judge))
            answer = self.answer(response, count)
        except ConnectorError as error:
            raise EmbedderError(f"{self._called()}: {error}") from error
        self._works = True
        if self._tokens is not None and answer.tokens is not None and answer.tokens > tokens:
            self._tokens.take(answer.tokens - tokens)
        return replace(answer, vectors=normalised(self._rows(answer.vectors, count, response)))

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

    def _check_it_works(self) -> None:
        """Asks for a text that any service takes, unless one has been embedded before.

        Raises:
            EmbedderError: it does not take that either, so it is not the fault of a text.
        """
        if not self._works:
            self._probe("passage")

    def _probe(self, kind: Kind) -> Answer:
        try:
            return self._asked([_PROBE], kind, len(_PROBE), [0])
        except EmbeddingError as error:
            raise EmbedderError(f"{error}; check the model and the settings") from error

    def _learn(self, texts: int, tokens: int, error: TooMuchError) -> None:
        """Remembers how much the service took at once, where more was too much."""
        with self._lock:
            limits = self._limits
            if error.of_texts:
                self._limits = replace(limits, texts=min(limits.texts, texts))
            else:
                self._limits = replace(limits, tokens=min(limits.tokens, tokens))

    def _called(self) -> str:
        return f"the embedder {self.name}:{self.model}"


class TokenBudget:
    """The tokens that may be sent in any minute, counted over all processes of a machine.

    Args:
        per_minute: The tokens; at least 1,000.
        name: Budgets of one name are one.
        redis: The address of a Redis server that counts for several machines.

    Raises:
        ConfigError: a number that cannot be.
    """

    def __init__(self, per_minute: object, name: str, redis: str | None = None) -> None:
        whole = int(per_minute) if isinstance(per_minute, int | float) else 0
        if isinstance(per_minute, bool) or whole != per_minute or whole < _LEAST:
            raise ConfigError(
                f"budget: tokens_per_minute is {per_minute!r}; write a whole number of at least "
                f"{_LEAST}"
            )
        self.per_minute = whole
        self._unit = -(-whole // _UNITS)
        limit = Limit(whole // self._unit, 60.0)
        self._budget = Budget([limit], f"tokens of {name}", redis)

    def take(self, tokens: int) -> None:
        """Waits until so many tokens more may be sent.

        Raises:
            ConnectorError: the Redis server cannot be asked.
        """
        for _ in range(-(-tokens // self._unit)):
            self._budget.acquire()


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
