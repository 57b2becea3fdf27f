"""Attachments: what becomes of each, ranges of bytes, limits, and addresses without signatures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from contextframe_beam.connectors.attachments import (
    Attachments,
    RemoteFile,
    media_type,
    without_signature,
)
from contextframe_beam.connectors.files.listing import FileChangedError, FileTooLargeError
from contextframe_beam.connectors.http import HttpClient, HttpError
from contextframe_beam.errors import ConfigError
from tests.worlds.file_host import FileHost

SIGNED = "?X-Amz-Signature=sig1"
DATA = bytes(range(256)) * 40


@pytest.fixture
def host() -> Iterator[FileHost]:
    made = FileHost()
    made.files["/a.bin"] = DATA
    yield made
    made.close()


def remote(host: FileHost, path: str = "/a.bin", **settings: int) -> RemoteFile:
    client = HttpClient(host.url, retries=0, **settings)
    return RemoteFile(client, f"{host.url}{path}{SIGNED}")


@pytest.mark.parametrize(
    ("choice", "name", "size", "how"),
    [
        ("none", "a.pdf", 1, None),
        ("metadata", "a.pdf", 1, "metadata"),
        ("text", "a.pdf", 100, "text"),
        ("text", "a.pdf", 101, "metadata"),
        ("text", "a.pdf", None, "text"),
        ("text", "A.PNG", 1, "metadata"),
        ("text", "without ending", 1, "text"),
        ("bytes", "a.png", 1, "bytes"),
        ("bytes", "a.png", 101, "metadata"),
    ],
)
def test_a_file_is_read_as_is_chosen(choice, name, size, how):
    assert Attachments.of(choice, 100).of_file(name, size) == how


def test_a_choice_that_there_is_not_is_refused():
    with pytest.raises(ConfigError, match="one of none, metadata, text, bytes"):
        Attachments.of("all")
    with pytest.raises(ConfigError, match="0 or more"):
        Attachments.of("text", -1)
    assert Attachments.of().choice in ("text", "metadata")
    assert media_type("a.pdf") == "application/pdf"


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        ("https://s3.test/a.pdf?X-Amz-Signature=x&X-Amz-Date=y", "https://s3.test/a.pdf"),
        ("https://f.test/a?signature=x&expirationTimestamp=1&name=a", "https://f.test/a"),
        ("https://g.test/a?GoogleAccessId=x&Expires=1&Signature=s", "https://g.test/a"),
        ("https://b.test/a?sv=1&se=2&sr=b&sig=x", "https://b.test/a"),
        ("https://cdn.test/a?ex=1&is=2&hm=3", "https://cdn.test/a"),
        ("https://a.test/b?page=2&lang=de", "https://a.test/b?page=2&lang=de"),
        ("https://a.test/b", "https://a.test/b"),
        ("http://[nonsense?token=x", "http://[nonsense"),
        ("no address", "no address"),
    ],
)
def test_a_signature_is_taken_off_an_address(address, plain):
    assert without_signature(address) == plain


def test_a_file_is_read_in_ranges_and_nothing_twice(host):
    file = remote(host)
    assert (file.head(1000), file.size) == (DATA[:1000], len(DATA))
    assert file.read(len(DATA)) == DATA
    assert [told for _, told, _ in host.asked] == ["bytes=0-999", "bytes=1000-10240"]


def test_an_empty_file_is_empty(host):
    host.files["/empty"] = b""
    file = remote(host, "/empty")
    assert (file.head(10), file.read(0), file.size) == (b"", b"", 0)


def test_of_a_file_that_is_too_large_only_the_beginning_is_read(host):
    file = remote(host)
    file.head(100)
    with pytest.raises(FileTooLargeError):
        file.read(5000)
    assert len(host.asked) == 1


def test_a_server_without_ranges_gives_all_of_it_within_the_limit(host):
    host.ranges = False
    assert remote(host).read(len(DATA)) == DATA
    with pytest.raises(FileTooLargeError):
        remote(host, max_response_bytes=5000).read(5000)


def test_a_file_that_changes_meanwhile_is_read_again(host):
    file = remote(host)
    file.head(100)
    host.files["/a.bin"] = DATA[:5000]
    assert file.read(len(DATA)) == DATA[:5000]


def test_a_file_that_always_changes_is_given_up(host):
    host.files["/a.bin"] = bytes(9 << 20)

    def change(path: str) -> None:
        host.files[path] += b"x"

    host.before = change
    with pytest.raises(FileChangedError):
        remote(host).read(10 << 20)


def test_a_refusal_tells_no_signature(host):
    with pytest.raises(HttpError, match="403 Forbidden") as caught:
        remote(host, "/missing").head(10)
    assert caught.value.is_of_one and "sig1" not in str(caught.value)
