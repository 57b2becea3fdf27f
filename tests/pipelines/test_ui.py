"""The page of a dataset: what it shows, that it only shows, and only to this machine."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.record import uuid_of
from contextframe_beam.pipelines.ui.app import listening
from contextframe_beam.pipelines.ui.chart import bars
from tests.support.cli_helpers import assert_error, cli
from tests.support.page_server import SCRIPT, make_dataset, served


@pytest.fixture(scope="module")
def kb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("ui"))


@pytest.fixture(scope="module")
def page(kb: Path) -> Iterator[str]:
    with served(kb) as address:
        yield address


def got(address: str, **how: object) -> str:
    answer = requests.get(address, timeout=30, **how)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return answer.text


def test_every_run_is_named_with_how_it_ended(page):
    text = got(page + "/")
    for run_id in ("first", "second", "third"):
        assert f'href="/runs/{run_id}"' in text
    assert ">failing<" in text and ">well<" in text
    assert text.count(">committed</span>") == 2 and ">failed</span>" in text


def test_documents_chunks_vectors_and_versions_are_counted(page, kb):
    text = got(page + "/")
    dataset = FrameDataset.open(str(kb))
    assert f"<dd>{dataset.contents.documents}</dd>" in text
    assert f"<dd>{dataset.contents.chunks}</dd>" in text
    assert "by hash:64" in text
    assert f"contextframe-beam rollback {kb} --to 1</code>" in text
    assert f"--to {dataset.version}<" not in text


def test_runs_are_charted(page):
    text = got(page + "/")
    for title in ("Documents in the dataset", "Texts embedded", "Items that failed"):
        assert f'aria-label="{title}' in text


def test_failures_are_shown_by_reason_with_a_whole_item(page):
    text = got(page + "/")
    assert "it is not JSON" in text
    assert html.escape(f"broken {SCRIPT}").replace("&#x27;", "&#39;") in text


def test_a_run_is_shown_with_its_arguments_and_its_error(page):
    text = got(page + "/runs/third")
    assert "Directory not found" in text and ">directory</th>" in text
    assert "replay" in got(page + "/runs/second")


def test_a_search_shows_three_ways_side_by_side(page):
    text = got(page + "/search", params={"q": "pears"})
    for way in ("Words", "Meaning", "Both"):
        assert f">{way}</h2>" in text
    assert text.count("Pears") >= 3


def test_a_search_makes_no_index(page, kb):
    before = FrameDataset.open(str(kb)).version
    got(page + "/search", params={"q": "stones"})
    assert FrameDataset.open(str(kb)).version == before


@pytest.mark.parametrize("text", ["", "  ", '"', "AND (", "a" * 5000, "\x00", "日本"])
def test_any_text_can_be_searched_for(page, text):
    assert "<h1>" in got(page + "/search", params={"q": text})


def test_a_document_is_shown_with_its_chunks(page):
    listed = got(page + "/documents")
    address = next(
        line.split('"')[1]
        for line in listed.splitlines()
        if "/documents/" in line and "Pears" in line
    )
    text = got(page + address)
    assert " chunks</h2>" in text and "Plums are blue." in text
    chunk = text.rpartition('<p><a href="')[2].partition('"')[0]
    assert "A chunk of" in got(page + chunk)


@pytest.mark.parametrize(
    ("readers", "said"),
    [
        (["user:ana@example.com", "group:<b>"], "group:&lt;b&gt;, user:ana@example.com"),
        ([f"user:{number}" for number in range(60)], "and 10 more"),
        ([], "nobody"),
        (None, "nobody knows"),
    ],
)
def test_a_document_says_who_may_read_it(tmp_path, readers, said):
    dataset = FrameDataset.create(str(tmp_path / "kb.lance"), embed_dim=2)
    dataset.add(FrameRecord("text", unique_id="doc:1", readers=readers))
    with served(tmp_path / "kb.lance") as address:
        text = got(f"{address}/documents/{uuid_of('doc:1')}")
    assert f"{said}.</p>" in text.partition("Who may read it: ")[2].splitlines()[0]


def test_a_document_links_to_those_it_is_related_to(page):
    text = got(f"{page}/documents/{uuid_of('r:c')}")
    assert f'parent: <a href="/documents/{uuid_of("r:p")}">Parent</a>' in text


def test_all_text_of_documents_is_escaped(page):
    for path in ("/", "/documents", "/search?q=pears", "/runs/second"):
        assert "<script" not in got(page + path)
    answer = requests.get(f"{page}/documents/{SCRIPT}", timeout=30)
    assert answer.status_code == 404 and "<script" not in answer.text


def test_it_asks_for_nothing_from_elsewhere_and_runs_no_script(page):
    answer = requests.get(page, timeout=30)
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "http://" not in answer.text and "https://" not in answer.text
    assert requests.get(page + "/style.css", timeout=30).status_code == 200


@pytest.mark.parametrize(
    ("headers", "method", "status"),
    [
        ({"Host": "evil.example"}, "GET", 403),
        ({"Host": "127.0.0.1.evil.example"}, "GET", 403),
        ({"Host": ""}, "GET", 403),
        ({"Origin": "http://evil.example"}, "GET", 403),
        ({"Origin": "null"}, "GET", 403),
        ({}, "POST", 405),
        ({}, "DELETE", 405),
        ({"Host": "localhost"}, "GET", 200),
        ({}, "HEAD", 200),
    ],
)
def test_only_this_machine_may_look_and_only_look(page, headers, method, status):
    answer = requests.request(method, page + "/", headers=headers, timeout=30)
    assert answer.status_code == status


@pytest.mark.parametrize("path", ["/runs/none", "/documents/none", "/documents?from=x", "/nowhere"])
def test_what_is_not_there_is_said(page, path):
    assert requests.get(page + path, timeout=30).status_code == 404


def test_a_dataset_that_does_not_exist_yet_has_a_page(tmp_path):
    kb = tmp_path / "new.lance"
    cli("ingest", "files", "--directory", tmp_path / "none", "--to", kb, "--run-id", "early")
    with served(kb) as address:
        text = got(address + "/")
        assert "There is no dataset here yet" in text and 'href="/runs/early"' in text
        assert "There are no documents here" in got(address + "/documents")
        assert "There is no dataset here yet" in got(address + "/search?q=a")
    assert not kb.exists()


def test_a_port_that_is_taken_is_said(kb):
    with listening(0) as at:
        port = at.getsockname()[1]
        at.listen()
        with pytest.raises(ConfigError, match=f"port {port} cannot be used"):
            listening(port)
        assert_error(cli("ui", kb, "--port", port), 2, f"port {port} cannot be used")


def test_bars_are_as_high_as_their_values():
    drawn = bars("A & B", ["<one>", "two"], [0, 1234])
    assert "A &amp; B" in drawn and "&lt;one&gt;: 0" in drawn and "two: 1,234" in drawn
    assert drawn.count("<rect") == 2 and 'height="0.0"' in drawn and 'height="114.0"' in drawn
