"""What the answer of an embedding service means: to wait, too much at once, one text, or the end.

Services say it in words of their own. What passes is asked again by the HTTP client; the rest is
one of the errors below, or one that ends everything.
"""

from __future__ import annotations

import re

from contextframe_beam.connectors.http import HttpResponse, Wait
from contextframe_beam.connectors.http.judges import usual
from contextframe_beam.errors import ConnectorError
from contextframe_beam.frames.embedders import EmbedderError, EmbedderRefusedError, EmbeddingError

__all__ = ["RejectedError", "TooMuchError", "judged"]

_TOO_MUCH = re.compile(
    r"too (?:many|much|long|large)|(?:max\w*|longest) (?:context|input|sequence|request)"
    r"|context[ _]length|token[ _](?:count|limit)|max\w*[ _](?:\w+[ _])?tokens"
    r"|exceed\w*\W(?:\S+ ){0,6}?(?:tokens?|length|limit|size)|less than \d+ tokens"
    r"|batch[ _]size|array too long|longer than|at most \d+|maximum of \d+|up to \d+",
    re.I,
)
# A server that fails speaks of much else; llama.cpp refuses a long text so.
_TOO_MUCH_FOR_SERVER = re.compile(r"too large to process|context size|batch size", re.I)
# OpenAI, where one request needs more than all tokens of a minute: waiting does not help.
_TOO_MUCH_FOR_MINUTE = re.compile(r"request too large", re.I)
_OF_TEXTS = re.compile(r"batch[ _]size|array|inputs|instances|items|texts|requests", re.I)
_NO_QUOTA = re.compile(
    r"insufficient[ _](?:quota|balance|funds|credit)|billing|exceeded your current quota"
    r"|credit balance|out of credits?",
    re.I,
)
_TELLING = 4096


class TooMuchError(EmbeddingError):
    """A request that is more than the service takes at once.

    Attributes:
        of_texts: Whether it has too many texts, not too many tokens.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.of_texts = _OF_TEXTS.search(message) is not None


class RejectedError(EmbeddingError):
    """A request that the service does not take, for a reason of its own."""


def judged(response: HttpResponse, embedder: str) -> Wait | Exception | None:
    """Says what an answer means, before anything is asked again.

    Args:
        response: The answer.
        embedder: Whose service it is, for messages.

    Returns:
        None for an answer with vectors and for a fault that the client knows by its status, a wait,
        or the error to raise.
    """
    status = response.status
    verdict = usual(response)
    if status < 400:
        return verdict or _cut_off(response)
    text = response.body[:_TELLING].decode("utf-8", "replace")
    told = f"{embedder}: {response.url} answered {status} ({response.excerpt()})"
    if status in (401, 402) or (status in (403, 429) and _NO_QUOTA.search(text)):
        return EmbedderRefusedError(
            f"{told}; check the key, and what its account may do and has left"
        )
    if isinstance(verdict, Wait):
        return verdict
    if status == 413 or _says_too_much(status, text):
        return TooMuchError(told)
    if status in (408, 425, 429) or status >= 500:
        return verdict
    if status in (400, 422):
        return RejectedError(told)
    if status == 403:
        return EmbedderRefusedError(f"{told}; check the key, and what its account may do")
    return EmbedderError(f"{told}; check the url and the model")


def _says_too_much(status: int, text: str) -> bool:
    words = {
        400: _TOO_MUCH,
        422: _TOO_MUCH,
        429: _TOO_MUCH_FOR_MINUTE,
        500: _TOO_MUCH_FOR_SERVER,
    }.get(status)
    return words is not None and words.search(text) is not None


def _cut_off(response: HttpResponse) -> Wait | None:
    """Asks again for an answer whose JSON ends too early, whatever length it stated."""
    try:
        response.json()
    except ConnectorError as error:
        if "is cut off" in str(error) or "is empty" in str(error):
            return Wait(reason="a body that ends in the middle")
    return None
