"""BaseConnector: connectors written as on the specification's page run as they stand, travel as
their arguments, keep their secrets to themselves, and know which source they are.
"""

from __future__ import annotations

import copy
import inspect
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from contextframe_beam.connectors import BaseConnector, FieldMapper
from contextframe_beam.connectors.page import (
    DeadLetter,
    Page,
    Partition,
    SourceInfo,
    decode_item,
    encode_item,
)
from contextframe_beam.errors import ConnectorError, SecretError
from contextframe_beam.frames.record import FrameRecord


class APIConnector(BaseConnector):
    """As on the page, without the network."""

    def __init__(
        self, base_url: str, api_key: str | None = None, timeout: int = 30, **options: Any
    ):
        super().__init__()
        self.base_url = base_url.rstrip("/")
        self.api_key = api_key
        self.options = options
        self.header_in_constructor = f"Bearer {api_key}" if api_key else None
        self.lock = threading.Lock()

    def authenticate(self) -> bool:
        if self.api_key == "wrong":
            raise ValueError(f"Authentication failed: {self.api_key} is not a key")
        self.authenticated = True
        return True

    def sync_documents(self, endpoint: str = "/documents", limit: int = 3) -> list[dict[str, Any]]:
        if not self.authenticated:
            raise RuntimeError("Not authenticated")
        return [{"id": number, "content": f"text {number}"} for number in range(limit)]

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return FrameRecord(text_content=item["content"], unique_id=f"api:{item['id']}")


class EnrichmentConnector(BaseConnector):
    """The page's: it says neither how to authenticate nor how to read."""

    def __init__(self, enrichers: list[Any] | None = None):
        super().__init__()
        self.enrichers = enrichers or []


class LargeFileConnector(BaseConnector):
    """The page's StreamingConnector."""

    def sync_documents_stream(self, count: int = 2):
        for number in range(count):
            yield {"id": number, "content": "x"}

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return FieldMapper(prefix="big").map(item)


class Dataset:
    """Keeps what is added, commit by commit."""

    def __init__(self) -> None:
        self.commits: list[list[FrameRecord]] = []

    def add_many(self, records: list[FrameRecord]) -> None:
        self.commits.append(list(records))


def test_a_connector_of_the_page_runs_in_a_plain_loop():
    connector = APIConnector("https://host/", api_key="k")
    with pytest.raises(RuntimeError, match="Not authenticated"):
        connector.sync_documents()
    assert connector.authenticate() is True
    records = [connector.map_to_frame_record(item) for item in connector.sync_documents()]
    assert [record.unique_id for record in records] == ["api:0", "api:1", "api:2"]


def test_the_tests_of_the_page_can_patch_it():
    connector = APIConnector("https://host/")
    connector.authenticated = True
    with patch.object(connector, "sync_documents") as sync:
        sync.return_value = [{"id": 1}]
        assert connector.sync_documents() == [{"id": 1}]
    assert len(connector.sync_documents()) == 3


def test_what_a_class_does_not_write_says_so():
    connector = EnrichmentConnector()
    assert connector.authenticate() is True and connector.authenticated
    with pytest.raises(ConnectorError, match=r"EnrichmentConnector has no own sync_documents"):
        connector.sync_documents()
    with pytest.raises(ConnectorError, match=r"no own map_to_frame_record.*FieldMapper"):
        connector.map_to_frame_record({})
    with pytest.raises(AttributeError, match="'EnrichmentConnector' object has no attribute 'x'"):
        _ = connector.x


def test_an_attribute_error_inside_a_property_is_not_hidden():
    class Broken(BaseConnector):
        @property
        def client(self) -> Any:
            return None.connect()  # type: ignore[attr-defined]

    with pytest.raises(AttributeError, match="connect"):
        _ = Broken().client


def test_a_stream_also_gives_a_list():
    assert len(LargeFileConnector().sync_documents(count=5)) == 5


def test_sync_to_dataset_authenticates_streams_and_commits_a_thousand_at_once():
    dataset = Dataset()
    connector = LargeFileConnector()
    assert connector.sync_to_dataset(dataset, count=2500) == 2500
    assert [len(commit) for commit in dataset.commits] == [1000, 1000, 500]
    assert connector.get_stats() == {
        "connector": "LargeFileConnector",
        "authenticated": True,
        "documents_added": 2500,
    }
    assert APIConnector("u").sync_to_dataset(dataset, limit=4) == 4


def test_refused_credentials_are_one_clear_error_without_the_secret(monkeypatch):
    monkeypatch.setenv("WRONG_KEY", "wrong")
    with pytest.raises(ConnectorError, match="authentication failed: ValueError") as caught:
        APIConnector("u", "env:WRONG_KEY").sync_to_dataset(Dataset())
    assert "env:WRONG_KEY is not a key" in str(caught.value)

    class Refusing(BaseConnector):
        def authenticate(self) -> bool:
            return False

    with pytest.raises(ConnectorError, match="Refusing: authentication failed"):
        Refusing().ensure_authenticated()


def test_it_travels_as_class_and_arguments_and_is_built_anew():
    connector = APIConnector("https://host/", timeout=5, region="eu")
    connector.authenticate()
    for travelled in (pickle.loads(pickle.dumps(connector)), copy.deepcopy(connector)):
        assert travelled is not connector
        assert travelled.options == {"region": "eu"} and travelled.base_url == "https://host"
        assert travelled.lock is not connector.lock
        assert travelled.authenticated is False
        assert travelled.source_id() == connector.source_id()


def test_later_changes_of_an_argument_do_not_travel():
    class Keeping(BaseConnector):
        def __init__(self, names: list[str]):
            super().__init__()
            names.append("changed in the constructor")

    given = ["a"]
    connector = Keeping(given)
    given.append("changed outside")
    assert connector._arguments == ((["a"],), {})


def test_a_connector_of_a_main_script_reaches_beams_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        """
import subprocess, sys
from apache_beam.internal import pickler
from contextframe_beam.connectors import BaseConnector

class Mine(BaseConnector):
    def __init__(self, value): super().__init__(); self.value = value

data = pickler.dumps(Mine("v"))
check = "import sys; from apache_beam.internal import pickler; " \\
    "assert pickler.loads(sys.stdin.buffer.read()).value == 'v'"
subprocess.run([sys.executable, "-c", check], input=data, check=True)
"""
    )
    subprocess.run([sys.executable, str(script)], check=True, env=dict(os.environ))


def test_a_reference_is_resolved_at_each_use_and_nowhere_kept(monkeypatch):
    monkeypatch.setenv("CHANGING_KEY", "value-one")
    connector = APIConnector("u", "env:CHANGING_KEY")
    assert connector.header_in_constructor == "Bearer value-one"
    assert connector.api_key == "value-one" and type(connector.api_key) is str
    monkeypatch.setenv("CHANGING_KEY", "value-two")
    assert connector.api_key == "value-two"
    assert "api_key" not in vars(connector)
    assert b"value-" not in pickle.dumps(connector)
    assert repr(connector) == "APIConnector(base_url='u', api_key='env:CHANGING_KEY')"
    assert pickle.loads(pickle.dumps(connector)).api_key == "value-two"
    monkeypatch.delenv("CHANGING_KEY")
    with pytest.raises(SecretError, match="CHANGING_KEY"):
        _ = connector.api_key


def test_a_reference_can_be_replaced_and_patched(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "some-value")
    connector = APIConnector("u", "env:SOME_KEY")
    with patch.object(connector, "api_key", "patched"):
        assert connector.api_key == "patched"
    assert connector.api_key == "some-value"
    connector.api_key = "plain"
    assert connector.api_key == "plain"


def test_a_reference_under_a_class_attribute_or_written_to_dict_is_not_lost(monkeypatch):
    class Settings(BaseConnector):
        token = None

        def __init__(self, **settings: Any):
            super().__init__()
            self.__dict__.update(settings)

    monkeypatch.setenv("A_TOKEN", "a-value")
    connector = Settings(token="env:A_TOKEN", other="env:A_TOKEN")
    assert f"{connector.token}" == "a-value"
    assert connector.other == "a-value"
    assert "a-value" not in str(vars(connector))


def test_plain_secrets_are_starred_and_taken_out_of_logs(caplog):
    caplog.set_level(logging.INFO)
    connector = APIConnector(
        "https://me:hunter2@host/", api_key="plain-key", headers={"Authorization": "Bearer abc.def"}
    )
    shown = repr(connector)
    assert "api_key='***'" in shown and "'Authorization': '***'" in shown
    assert "hunter2" not in shown
    connector.logger.info("sent %s and abc.def", connector.api_key)
    assert "sent *** and ***" in caplog.text
    assert pickle.loads(pickle.dumps(connector)).api_key == "plain-key"


def test_a_logger_of_the_authors_own_is_redacted_too(caplog):
    class Logged(BaseConnector):
        def __init__(self, password: str):
            super().__init__()
            self.logger = logging.getLogger("of.the.author")
            self.password = password

    connector = Logged("open-sesame")
    assert connector.logger.name == "of.the.author"
    connector.logger.warning("password is %s", connector.password)
    assert "password is ***" in caplog.text and "open-sesame" not in caplog.text


def test_signatures_stay_visible_to_tools():
    assert list(inspect.signature(APIConnector).parameters) == [
        "base_url",
        "api_key",
        "timeout",
        "options",
    ]
    with pytest.raises(TypeError, match="base_url"):
        APIConnector()  # type: ignore[call-arg]


def test_identity_is_class_and_arguments_without_secrets_defaults_and_tuning():
    identity = APIConnector(
        "https://me:pw@host/", api_key="k", timeout=99, region="eu", password="p"
    ).source_identity({"endpoint": "/documents", "depth": 7, "limit": 2})
    assert identity == {
        "connector": f"{__name__}:APIConnector",
        "arguments": {"base_url": "https://me:***@host/", "region": "eu"},
        "sync": {"depth": 7},
    }
    assert APIConnector("u").source_id() == APIConnector(base_url="u", timeout=1).source_id()
    assert APIConnector("u").source_id() != APIConnector("v").source_id()
    assert APIConnector("u").source_id({"depth": 4}) != APIConnector("u").source_id()


def test_a_class_may_name_what_makes_its_identity():
    class Folder(BaseConnector):
        identity_args = ("path",)

        def __init__(self, path: str, order: str = "name"):
            super().__init__()

    assert Folder("p", order="size").source_id() == Folder("p").source_id()
    assert Folder("p").source_identity()["arguments"] == {"path": "p"}


def test_identity_is_the_same_in_every_process():
    arguments = {
        "names": {"b", "a", "c"},
        "path": Path("x") / "y",
        "day": date(2024, 1, 2),
        "data": b"bytes",
        "mapper": FieldMapper(prefix="p", constants={"z": 1, "a": 2}),
        "inner": EnrichmentConnector(),
        "nested": {"token": "t", "k": (1, 2.5, None, True)},
        "function": os.path.join,
        "missing": float("nan"),
    }
    code = f"""
import os
from datetime import date
from pathlib import Path
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_base_connector as module
from test_base_connector import *
connector = APIConnector("u", **{{
    "names": {{"c", "b", "a"}}, "path": Path("x/y"), "day": date(2024, 1, 2), "data": b"bytes",
    "mapper": FieldMapper(prefix="p", constants={{"a": 2, "z": 1}}),
    "inner": EnrichmentConnector(), "nested": {{"token": "u", "k": (1, 2.5, None, True)}},
    "function": os.path.join, "missing": float("nan")}})
print(connector.source_id())
"""
    there = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    connector = APIConnector("u", **arguments)
    renamed = json.loads(
        json.dumps(connector.source_identity()).replace(__name__, "test_base_connector")
    )
    from contextframe_beam.connectors.identity import digest

    assert there == {digest(renamed)}


def test_partitions_and_pages_travel():
    source = SourceInfo("0" * 16, "name", {"connector": "x"})
    page = Page([1], source=source, partition="p", state={"cursor": 3}, finished=1)
    assert pickle.loads(pickle.dumps(page)) == page
    assert pickle.loads(pickle.dumps(Partition("a", {"b": 1}))) == Partition("a", {"b": 1})


def test_a_dead_letter_says_everything_and_can_be_replayed(monkeypatch):
    monkeypatch.setenv("LETTER_KEY", "letter-secret")
    connector = APIConnector("u", "env:LETTER_KEY")
    item = {"id": 1, "raw": b"\x00\xff", "url": f"https://h/?k={connector.api_key}", "n": [None]}
    try:
        raise KeyError(f"no field in {item['url']}")
    except KeyError as error:
        letter = DeadLetter.of("map", error, item, "api", "channel", "page 3", run_id="r1")
    text = letter.to_json()
    assert "\n" not in text and "letter-secret" not in text
    again = DeadLetter.from_json(text)
    assert again == letter
    assert (again.stage, again.connector, again.partition, again.position, again.run_id) == (
        "map",
        "api",
        "channel",
        "page 3",
        "r1",
    )
    assert again.error_type == "KeyError"
    assert "test_a_dead_letter" in again.traceback
    assert again.time.endswith("+00:00")
    assert again.original_item() == {**item, "url": "https://h/?k=env:LETTER_KEY"}


def test_a_deep_traceback_keeps_its_innermost_calls():
    def fall(depth: int) -> None:
        if depth == 0:
            raise ValueError("x" * 100_000)
        fall(depth - 1)

    try:
        fall(200)
    except ValueError as error:
        letter = DeadLetter.of("map", error, None, "c", "p", "0")
    assert len(letter.traceback) < 9_000 and len(letter.message) < 5_000


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize(
    "item",
    [
        None,
        [1, 2.5, "ü\ud800", True, {"a": {}}],
        {"t": (1, (2,)), "s": {1, "a"}, 3: {None: 4}, (1, 2): b"x"},
        {"day": date(2024, 1, 2), "big": 10**5000, "inf": float("inf")},
        {"__bytes__": "not bytes"},
        {"__repr__": "not a repr", "more": 1},
    ],
)
def test_items_come_back_as_they_were(item):
    assert decode_item(json.loads(json.dumps(encode_item(item), allow_nan=False))) == item


def test_items_that_json_cannot_hold_are_kept_as_text():
    endless: list[Any] = []
    endless.append(endless)
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for item in (Odd(), {"x": {Odd()}}, {Odd(): 1}, endless, deep, object()):
        encoded = json.dumps(encode_item(item))
        decode_item(json.loads(encoded))
    assert encode_item(Odd()) == {"__repr__": f"<{__name__}.Odd whose repr raises RuntimeError>"}
    while deep:
        deep = deep.pop()


def test_a_text_that_is_no_dead_letter_is_refused():
    with pytest.raises(ValueError, match="it has no stage, connector"):
        DeadLetter.from_json("{}")
    with pytest.raises(ValueError, match="not list"):
        DeadLetter.from_json("[]")
