"""The examples of the page about custom connectors, run: its blocks, with their gaps filled in.

The blocks are in `connector_page.txt`. They are run here in the order of the page, in the one
namespace of this module, so that workers find the classes. Below them stands what the page leaves
to the reader, in the plainest way.
"""

# ruff: noqa: F821  (names come from the blocks)
from __future__ import annotations

import base64
import hashlib
import re
import time  # noqa: F401  (the page's blocks use it without importing it)
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import uuid4

import pyotp
import requests

COPY = Path(__file__).with_name("connector_page.txt")


def python_blocks(text: str) -> list[str]:
    """Returns the Python blocks of a Markdown text."""
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def blocks() -> dict[str, str]:
    """Returns the blocks of the page by their headings, with our import root."""
    text = COPY.read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    renamed = [
        re.sub(r"^from contextframe\b", "from contextframe_beam", one, flags=re.MULTILINE)
        for one in python_blocks(text)
    ]
    return dict(zip(headings, renamed, strict=True))


#: Blocks that are no part of a connector's module.
APART = {
    "Unit Tests",
    "Integration Tests",
    "Setup.py",
    "Quick Start",
}
for _heading, _block in blocks().items():
    if _heading not in APART:
        exec(compile(_block, f"{COPY.name}: {_heading}", "exec", dont_inherit=True))


def page_of(url: str, **asked: Any) -> list[dict[str, Any]]:
    """Returns the items of one page of the test server."""
    answer = requests.get(f"{url}/api/pages", params=asked, timeout=10)
    answer.raise_for_status()
    return answer.json()["items"]


def mapped(prefix: str, item: dict[str, Any]) -> FrameRecord:
    return FrameRecord(
        item["content"], {"title": item["title"]}, unique_id=f"{prefix}:{item['id']}"
    )


class FilledCustomConnector(CustomConnector):
    """Knows two documents; with `test_mode` it does not ask who reads them."""

    def __init__(self, api_key: str = "", test_mode: bool = False):
        super().__init__(api_key=api_key, test_mode=test_mode)
        self.api_key = api_key
        self.test_mode = test_mode

    def authenticate(self) -> bool:
        if not self.test_mode:
            answer = requests.get("http://api.invalid/me", headers={"X-Key": self.api_key})
            self.authenticated = answer.status_code == 200
        return self.test_mode or self.authenticated

    def _fetch_data(self) -> list[dict[str, Any]]:
        return [{"id": 1, "content": "A test."}, {"id": 2, "content": "Another test."}]

    def sync_documents(self, **kwargs: Any) -> list[dict[str, Any]]:
        return self._fetch_data()

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return FrameRecord(
            item["content"], {"author": item.get("author")}, unique_id=f"custom:{item['id']}"
        )


class FilledIncrementalConnector(IncrementalConnector):
    """Records of a day each, from the test server."""

    def __init__(self, url: str, state_file: str | None = None):
        super().__init__(state_file)
        self.url = url

    def _changes(self, **since: str) -> list[dict[str, Any]]:
        asked = {"n": 3, "size": 10, **since}
        return requests.get(f"{self.url}/api/changes", params=asked, timeout=10).json()["items"]

    def _full_sync(self) -> list[dict[str, Any]]:
        return self._changes()

    def _incremental_sync(self, since: str) -> list[dict[str, Any]]:
        return self._changes(since=since)

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return mapped("incremental", item)


class FilledBatchConnector(BatchConnector):
    """Ranges of the records of the test server."""

    def __init__(self, url: str, batch_size: int = 2):
        super().__init__(batch_size)
        self.url = url

    def _fetch_batch(self, start: int, end: int) -> list[dict[str, Any]]:
        asked = {"n": 100, "offset": start, "limit": end - start}
        return requests.get(f"{self.url}/api/offsets", params=asked, timeout=10).json()["results"]

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return mapped("batch", item)


class FilledStreamingConnector(StreamingConnector):
    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return mapped("streaming", item)


class FilledOAuthConnector(OAuthConnector):
    """Agrees in the browser that the environment names; the code comes back to a port."""

    def __init__(self, url: str, client_id: str, client_secret: str):
        super().__init__(client_id, client_secret)
        self.url = url

    def _build_auth_url(self) -> str:
        self.server = HTTPServer(("127.0.0.1", 0), CallbackHandler)
        self.redirect_uri = f"http://127.0.0.1:{self.server.server_port}/callback"
        self.verifier = uuid4().hex * 2
        digest = hashlib.sha256(self.verifier.encode()).digest()
        asked = {
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
        }
        return f"{self.url}/oauth/authorize?{urlencode(asked)}"

    def _wait_for_callback(self) -> str:
        self.server.code = None
        self.server.timeout = 30
        self.server.handle_timeout = self._nobody_agreed
        while self.server.code is None:
            self.server.handle_request()
        self.server.server_close()
        return self.server.code

    def _nobody_agreed(self) -> None:
        raise TimeoutError("the browser did not come back with a code")

    def _exchange_code(self, code: str) -> dict[str, Any]:
        return self._token("authorization_code", code=code, redirect_uri=self.redirect_uri)

    def _refresh_access_token(self) -> None:
        super()._refresh_access_token()
        self.access_token = self._token("refresh_token", refresh_token=self.refresh_token)[
            "access_token"
        ]

    def _token(self, grant: str, **fields: str) -> dict[str, Any]:
        form = {
            "grant_type": grant,
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "code_verifier": self.verifier,
            **fields,
        }
        answer = requests.post(f"{self.url}/oauth/token", data=form, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def sync_documents(self, **kwargs: Any) -> list[dict[str, Any]]:
        self._ensure_authenticated()
        return page_of(self.url, n=2)

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return mapped("oauth", item)


class CallbackHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.code = parse_qs(urlsplit(self.path).query)["code"][0]
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


ONE_TIME_SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"


def input(prompt: str) -> str:
    """Stands for the person whom the page asks: types in the code of the authenticator."""
    assert prompt == "Enter MFA code: "
    return pyotp.TOTP(ONE_TIME_SECRET).now()


class FilledMFAConnector(MFAConnector):
    """Logs in to the test server in two steps."""

    def __init__(self, url: str, username: str, password: str, mfa: bool = True):
        super().__init__()
        self.url = url
        self.username = username
        self.password = password
        self.mfa = mfa

    def _initial_auth(self, username: str, password: str) -> dict[str, Any]:
        query = f"?otp={ONE_TIME_SECRET}" if self.mfa else ""
        return self._posted(f"challenge{query}", user=username, password=password)

    def _complete_mfa(self, session_id: str, mfa_code: str) -> dict[str, Any]:
        return self._posted("code", session_id=session_id, code=mfa_code)

    def _posted(self, what: str, **fields: str) -> dict[str, Any]:
        answer = requests.post(f"{self.url}/login/{what}", json=fields, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def sync_documents(self, **kwargs: Any) -> list[dict[str, Any]]:
        assert self.session_token
        return page_of(self.url, n=2)

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return mapped("mfa", item)


class MappedConnector(CustomConnector):
    """Maps with the page's AdvancedMapper."""

    def sync_documents(self, **kwargs: Any) -> list[dict[str, Any]]:
        blocks = [{"type": "text", "content": "Text."}, {"type": "code", "content": "x = 1"}]
        return [
            {"id": "a", "blocks": blocks, "parent_id": "b"},
            {"id": "b", "sections": [{"title": "Part", "content": "Of it."}], "tags": ["red"]},
            {"id": "c", "body": "A body.", "references": ["a", "b"]},
        ]

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return FrameRecord(
            AdvancedMapper.extract_text_content(item),
            {"relationships": AdvancedMapper.build_relationships(item)},
            unique_id=f"mapped:{item['id']}",
        )


class FilledEnrichmentConnector(EnrichmentConnector):
    def sync_documents(self, **kwargs: Any) -> list[dict[str, Any]]:
        return [{"id": 1, "text": "Beam, beam and Lance."}]

    def _extract_text(self, item: dict[str, Any]) -> str:
        return item["text"]

    def _extract_metadata(self, item: dict[str, Any]) -> dict[str, Any]:
        return {"source": "enrichment", "id": item["id"]}


class FilledPooledConnector(PooledConnector):
    def __init__(self, url: str, pool_size: int = 10):
        super().__init__(pool_size)
        self.url = url

    def sync_documents(self, **kwargs: Any) -> list[dict[str, Any]]:
        return self.pool.get(f"{self.url}/api/pages", params={"n": 2}, timeout=10).json()["items"]

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return mapped("pooled", item)


class FilledCachedConnector(CachedConnector):
    """Asks for each page once, however often it is read."""

    def __init__(self, url: str, cache_ttl: int = 3600):
        super().__init__(cache_ttl)
        self.url = url

    def sync_documents(self, **kwargs: Any) -> list[dict[str, Any]]:
        key = self._get_cache_key(n=2)
        return [*self._fetch_with_cache(key), *self._fetch_with_cache(key)][:2]

    @lru_cache(maxsize=1000)  # noqa: B019  (as the page has it)
    def _fetch_with_cache(self, cache_key: str) -> dict[str, Any]:
        return page_of(f"{self.url}", n=2, kind="total", key=cache_key)

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return mapped("cached", item)


class FilledRobustConnector(RobustConnector):
    """Its first request takes too long."""

    def __init__(self, url: str):
        super().__init__()
        self.url = url
        self.patience = 0.001

    def _sync_documents_internal(self, **kwargs: Any) -> list[dict[str, Any]]:
        patience, self.patience = self.patience, 10
        asked = {"n": 2, "ms": 20}
        answer = requests.get(f"{self.url}/api/pages", params=asked, timeout=(10, patience))
        return answer.json()["items"]

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return mapped("robust", item)


class FilledLoggedConnector(LoggedConnector):
    def __init__(self, url: str):
        super().__init__()
        self.url = url

    def _sync_internal(self, **kwargs: Any) -> list[dict[str, Any]]:
        return page_of(self.url, n=2)

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return mapped("logged", item)
