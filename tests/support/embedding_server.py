"""Embedding services on this machine, which answer by the hash embedder: OpenAI's and Vertex AI's.

A test says how the service behaves: its limits, how it writes its answers, and what goes wrong with
the next requests.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from contextframe_beam.transforms.embedders import HashEmbedder

#: A status, headers and a body; a body that is no bytes is sent as JSON.
Reply = tuple[int, dict[str, str], Any]


@dataclass
class EmbeddingServer:
    """A service, how it behaves, and what it was asked.

    Attributes:
        url: Its address.
        dim: The dimensions of its vectors, unless it is asked for others.
        key: The key that it wants; None for none.
        most_texts: Texts that it takes a request; more are answered 422, as TEI does.
        most_tokens: Words that it takes a request; more are answered 400, as OpenAI does.
        longest: Words that a text may have.
        base64: Whether it knows that format; None: it is passed over, False: it is refused.
        refused: Texts with this in them are answered 400.
        next: What comes in place of the next answers, first to last.
        change: Changes an answer before it is sent.
        together: So many requests have to be there before one is answered.
        requests: The bodies that it was sent.
        paths: The paths that were asked for.
    """

    url: str = ""
    dim: int = 16
    key: str | None = None
    most_texts: int = 2048
    most_tokens: int = 300_000
    longest: int = 8192
    base64: bool | None = True
    refused: str | None = None
    next: list[Reply] = field(default_factory=list)
    change: Callable[[Any], Any] = lambda answer: answer
    together: threading.Barrier | None = None
    requests: list[Any] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        """All texts that were sent, in order."""
        return [
            text
            for body in self.requests
            for text in body.get("input") or [one["content"] for one in body["instances"]]
        ]

    def answer(self, path: str, authorization: str | None, body: Any) -> Reply:
        """Returns the answer to a request."""
        if path == "/token":
            return 200, {}, {"access_token": self.key, "expires_in": 3600, "token_type": "Bearer"}
        if self.next:
            return self.next.pop(0)
        if self.key is not None and authorization != f"Bearer {self.key}":
            return error(401, "Incorrect API key provided", "invalid_api_key")
        if path == "/v1/embeddings":
            return self._openai(body)
        if path.endswith(":predict"):
            return self._vertex(body)
        return error(404, f"there is no {path}")

    def _openai(self, body: Any) -> Reply:
        texts = body["input"]
        if self.base64 is False and "encoding_format" in body:
            return error(400, "Unrecognized request argument: encoding_format")
        refusal = self._refusal(texts)
        if refusal is not None:
            return refusal
        vectors = HashEmbedder(str(body.get("dimensions") or self.dim)).embed(texts)
        as_base64 = self.base64 and body.get("encoding_format") == "base64"
        data = [
            {
                "object": "embedding",
                "index": number,
                "embedding": (
                    base64.b64encode(row.tobytes()).decode() if as_base64 else row.tolist()
                ),
            }
            for number, row in enumerate(vectors)
        ]
        count = sum(map(words, texts))
        usage = {"prompt_tokens": count, "total_tokens": count}
        return 200, {}, self.change({"object": "list", "data": data, "usage": usage})

    def _vertex(self, body: Any) -> Reply:
        texts = [one["content"] for one in body["instances"]]
        refusal = self._refusal(texts)
        if refusal is not None:
            return refusal
        dim = body.get("parameters", {}).get("outputDimensionality") or self.dim
        vectors = HashEmbedder(str(dim)).embed(texts)
        predictions = [
            {
                "embeddings": {
                    "values": row.tolist(),
                    "statistics": {"token_count": words(text), "truncated": False},
                }
            }
            for text, row in zip(texts, vectors, strict=True)
        ]
        return 200, {}, self.change({"predictions": predictions})

    def _refusal(self, texts: list[str]) -> Reply | None:
        if self.refused is not None and any(self.refused in text for text in texts):
            return error(400, "the input is not to our liking")
        if len(texts) > self.most_texts:
            told = f"batch size {len(texts)} > maximum allowed batch size {self.most_texts}"
            return error(422, told)
        if any(words(text) > self.longest for text in texts):
            told = f"This model's maximum context length is {self.longest} tokens"
            return error(400, told)
        if sum(map(words, texts)) > self.most_tokens:
            return error(400, f"Requested too many tokens, max {self.most_tokens} per request")
        return None


def words(text: str) -> int:
    """Returns the tokens of a text, as this service counts them."""
    return len(text.split())


def error(status: int, message: str, code: str | None = None, **headers: str) -> Reply:
    """Returns a refusal in the form of OpenAI's."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, named, {"error": {"message": message, "code": code, "type": None}}


@contextmanager
def embedding_server(**behaviour: Any) -> Iterator[EmbeddingServer]:
    """Runs a service on a free port of this machine.

    Args:
        **behaviour: The attributes of `EmbeddingServer`.
    """
    service = EmbeddingServer(**behaviour)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = urlsplit(self.path).path
            if service.together is not None and path != "/token":
                service.together.wait(20)
            with lock:
                body = {} if path == "/token" else json.loads(sent)
                if path != "/token":
                    service.requests.append(body)
                service.paths.append(path)
                status, headers, answer = service.answer(
                    path, self.headers.get("Authorization"), body
                )
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            if "Content-Length" in headers:  # more was promised
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    http = Server(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
