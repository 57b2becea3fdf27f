"""A fast local HTTP server, whose answers take 50 ms but never wait for each other.

Records are of 1 KB, in pages of 100, and the same every time.

    GET /items?page=N                one endpoint by page number, from 1, with the totals
    GET /partitions/P/items?cursor=C one of 20 partitions by cursor
    GET /_counts                     {"requests": ..., "at_once": ...} since the last such request

    python benchmarks/http_server.py RECORDS

prints its address, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from urllib.parse import parse_qs, urlsplit

LATENCY = 0.05
PAGE = 100
PARTITIONS = 20
#: How many requests each client may have under way: the default of APIConnector.
AT_ONCE = 16

_TEXTS = 100


class Records:
    """The records, as the JSON of their pages.

    Args:
        number: Their number.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        chance = random.Random(20261101)
        words = ["".join(chance.choices("abcdefghijklmnoprstuvw", k=5)) for _ in range(2000)]
        texts = (" ".join(chance.choices(words, k=130)) for _ in range(_TEXTS))
        # Made once, because formatting would take time from the client on the same machine.
        self._rest = [
            json.dumps(
                {
                    "title": text[:40],
                    "text": text,
                    "author": {"name": f"user{index}"},
                    "kind": "note",
                    "url": f"https://example.org/d/{index}",
                    "updated_at": "2025-03-04T09:30:00Z",
                }
            )[1:].encode()
            for index, text in enumerate(texts)
        ]

    def page(self, prefix: str, first: int, stop: int) -> bytes:
        """Returns the JSON list of the records from `first` up to but not including `stop`."""
        name, rest = prefix.encode(), self._rest
        return b"[%b]" % b",".join(
            [b'{"id":"%b-%d",%b' % (name, n, rest[n % _TEXTS]) for n in range(first, stop)]
        )

    def answer(self, target: str) -> bytes | None:
        """Returns the body for a path and query, or None if there is no such page."""
        parts = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        steps = parts.path.strip("/").split("/")
        if steps == ["items"]:
            first = (int(query.get("page", 1)) - 1) * PAGE
            data = self.page("item", first, min(first + PAGE, self.number))
            return b'{"data":%b,"total":%d,"total_pages":%d}' % (
                data,
                self.number,
                -(-self.number // PAGE),
            )
        if len(steps) == 3 and steps[0] == "partitions" and steps[2] == "items":
            part = int(steps[1])
            size = (part + 1) * self.number // PARTITIONS - part * self.number // PARTITIONS
            first = int(query.get("cursor", "c0")[1:])
            stop = min(first + PAGE, size)
            following = b'"c%d"' % stop if stop < size else b"null"
            return b'{"data":%b,"next":%b}' % (self.page(f"part{part}", first, stop), following)
        return None


class Counts:
    """The counts of the server's requests."""

    def __init__(self) -> None:
        self.requests = self.running = self.at_once = 0

    def taken(self) -> bytes:
        """Returns the counts as JSON, and resets them."""
        found = {"requests": self.requests, "at_once": self.at_once}
        self.requests = self.at_once = 0
        return json.dumps(found).encode()


class _Connection(asyncio.Protocol):
    def __init__(self, records: Records, counts: Counts) -> None:
        self._records = records
        self._counts = counts
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            target = head.split(b" ", 2)[1].decode()
            if target == "/_counts":
                self._reply(self._counts.taken())
                continue
            counts = self._counts
            counts.requests += 1
            counts.running += 1
            counts.at_once = max(counts.at_once, counts.running)
            asyncio.get_running_loop().call_later(LATENCY, self._answer, target)

    def _answer(self, target: str) -> None:
        self._counts.running -= 1
        self._reply(self._records.answer(target))

    def _reply(self, body: bytes | None) -> None:
        if self._transport.is_closing():
            return
        status = b"200 OK" if body is not None else b"404 Not Found"
        body = body if body is not None else b'{"error":"there is no such thing"}'
        self._transport.write(
            b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (status, len(body), body)
        )


async def serve(number: int) -> None:
    """Serves until standard input ends."""
    records, counts = Records(number), Counts()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(records, counts), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    print(f"http://{host}:{port}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
