"""All that a run leaves is searched for the secrets that it used: nothing of them may be there."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from urllib.parse import quote

import apache_beam as beam
import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.read.transform import ReadFromConnector
from contextframe_beam.connectors.registry import build_connector, load_connector_class
from contextframe_beam.transforms import MapToFrames, WriteToLance
from tests.support.cli_helpers import cli_process, environment, letters_of

TOKEN = 's3cr:t/a+b=é"x'
PASSWORD = "p4ss:w0rd"
CONNECTOR = """
import logging
import threading
import warnings

from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.frames.record import FrameRecord


class Talkative(BaseConnector):
    '''Tells its secrets wherever it can, but for the documents.'''

    def __init__(self, token: str, dsn: str, fails: bool = False):
        super().__init__()
        self.token, self.dsn, self.fails = token, dsn, fails

    def authenticate(self):
        return True

    def sync_documents(self):
        for secret in (self.token, self.dsn, PASSWORD):
            for name in ("contextframe_beam.talkative", "vendor.sdk", None):
                logger = logging.getLogger(name)
                logger.info("info %s", secret)
                logger.warning("formatted " + secret)
                logger.error("does not fit %d", secret)
                logger.error("with more", extra={"given": [secret]})
                try:
                    raise ValueError(secret)
                except ValueError:
                    logger.exception("caught")
            warnings.warn(f"warned of {secret}")
            thread = threading.Thread(target=self.refused, args=(secret,))
            thread.start()
            thread.join()
        if self.fails:
            self.refused(self.token)
        return [{"id": number} for number in range(6)]

    def map_to_frame_record(self, item):
        if item["id"] == 5:
            raise ValueError(f"{self.token} is refused by {self.dsn}, with {PASSWORD}")
        return FrameRecord("text", metadata={}, unique_id=str(item["id"]))

    def refused(self, secret):
        raise RuntimeError(f"refused: {secret}")
""".replace("PASSWORD", repr(PASSWORD))


def forms(secret: str) -> set[str]:
    encoded = base64.b64encode(secret.encode()).decode()
    return {
        secret,
        json.dumps(secret)[1:-1],
        quote(secret, safe=""),
        quote(secret),
        encoded[: len(encoded) // 4 * 4 - 4],
    }


def assert_nowhere(text: str) -> None:
    for secret in (TOKEN, PASSWORD):
        for form in forms(secret):
            assert form not in text
    # Nor a part of it, in an encoding that nobody thought of.
    for part in ("s3cr", "w0rd"):
        assert part not in text, text[max(0, text.index(part) - 300) : text.index(part) + 50]


def assert_left_nothing(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".py":
            assert_nowhere(path.read_bytes().decode("latin-1"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TALKATIVE_TOKEN", TOKEN)
    (tmp_path / "talkative.py").write_text(CONNECTOR)
    return tmp_path


def command(folder: Path, *options: object) -> list[object]:
    source = ["ingest", f"{folder}/talkative.py:Talkative", "--token", "env:TALKATIVE_TOKEN"]
    dsn = f"postgres://me:{quote(PASSWORD)}@db/x"
    return [*source, "--dsn", dsn, "--to", folder / "kb", *options]


@pytest.mark.parametrize(
    "options",
    [
        ["--workers", 2, "--debug"],
        ["--workers", 2, "--log-format", "json", "-v"],
        ["--debug"],
    ],
    ids=str,
)
def test_a_run_that_talks(options: list[object], folder: Path) -> None:
    # Elsewhere than in this process, which must not have learned the secret before.
    done = cli_process(*command(folder, *options), env=environment(TMPDIR=str(folder)))
    assert done.code == 0, done
    assert "env:TALKATIVE_TOKEN" in done.err
    assert_nowhere(done.out + done.err)
    assert_left_nothing(folder)
    (letter,) = letters_of(folder / "kb")
    assert "env:TALKATIVE_TOKEN is refused" in letter["message"]
    (state,) = FrameDataset.open(str(folder / "kb")).states()
    assert "postgres://me:***@db/x" in json.dumps(state.identity)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_fails(workers: int, folder: Path) -> None:
    arguments = command(folder, "--fails", "--workers", workers, "--debug")
    done = cli_process(*arguments, env=environment(TMPDIR=str(folder)))
    assert done.code == 1
    assert "env:TALKATIVE_TOKEN" in done.err
    assert_nowhere(done.out + done.err)
    assert_left_nothing(folder)


def test_the_graph_that_travels_to_an_engine(folder: Path) -> None:
    cls = load_connector_class(f"{folder}/talkative.py:Talkative")
    connector = build_connector(cls, {"token": "env:TALKATIVE_TOKEN", "dsn": "env:TALKATIVE_DSN"})
    assert connector.token == TOKEN
    pipeline = beam.Pipeline()
    (
        pipeline
        | ReadFromConnector(connector)
        | MapToFrames(connector)
        | WriteToLance(str(folder / "kb"), storage_options={"region": "x"})
    )
    described, _ = pipeline.to_runner_api(return_context=True)
    assert_nowhere(described.SerializeToString().decode("latin-1"))
    assert "env:TALKATIVE_TOKEN" in str(connector)


@pytest.mark.parametrize(
    "message",
    [
        "<Error><Code>InvalidAccessKeyId</Code><AWSAccessKeyId>minio-s3cr</AWSAccessKeyId></Error>",
        "HTTP error 403 for https://b.s3.amazonaws.com/k?X-Amz-Security-Token=s3cr3t&x=1",
        "<CanonicalRequest>GET\n/\nx-amz-security-token:s3cr3t\n</CanonicalRequest>",
        "Generic S3 error: the key stored-key-s3cr of the options is not known",
        "the session env-session-s3cr has expired",
    ],
)
def test_what_an_object_store_says(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "env-session-s3cr")
    secrets.register_store({"aws_access_key_id": "stored-key-s3cr", "region": "eu"})
    assert "s3cr" not in secrets.redact(message)
    assert secrets.redact("region eu") == "region eu"


def test_what_only_a_worker_knows_is_taken_out_there() -> None:
    from contextframe_beam.pipelines.runners.harness import _Traceback

    os.environ["ONLY_HERE"] = "known-s3cret"
    try:
        raise ValueError(secrets.resolve("env:ONLY_HERE"))
    except ValueError:
        text = _Traceback().format_exc()
    finally:
        del os.environ["ONLY_HERE"]
    assert text.endswith("ValueError: env:ONLY_HERE\n")
