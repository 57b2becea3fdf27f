"""What a runner is told of a job: no secret, and no documents where workers hand something on.

Nothing is run: the job is translated as for any runner (Dataflow's is not here to run it), and
Beam's own fusion shows what stays inside a worker.
"""

from __future__ import annotations

import base64
import bz2
import zlib
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import translations

from contextframe_beam.connectors import BaseConnector, ReadFromConnector
from contextframe_beam.connectors.api import APIConnector
from contextframe_beam.connectors.registry import build_connector, load_connector_class
from contextframe_beam.transforms import Enrich, KeywordEnricher, MapToFrames, WriteToLance
from tests.support.pipeline_helpers import EMBED_DIM

SECRET = "planted-secret-4711"
#: A connector in a file.
OWN = """
from contextframe_beam import FrameRecord
from contextframe_beam.connectors import BaseConnector


class Own(BaseConnector):
    def __init__(self, token: str):
        super().__init__()
        self.token = token

    def sync_documents(self):
        yield {"id": "1"}

    def map_to_frame_record(self, item):
        return FrameRecord("x", unique_id=item["id"])
"""
PARDO = "beam:transform:pardo:v1"

#: The steps whose elements hold documents, and the one that takes them last.
DOCUMENTS = ("Read/Read/Process", "MapToFrames/Map", "Enrich/Enrich", "WriteToLance/Encode")
WRITER = "WriteToLance/WriteFragments"


def described(connector: BaseConnector, folder: Path) -> Any:
    """Returns the description of a job that reads a connector into a new dataset."""
    pipeline = beam.Pipeline()
    frames = pipeline | "Read" >> ReadFromConnector(connector) | MapToFrames(connector)
    sink = WriteToLance(
        str(folder / "kb.lance"),
        embed_dim=EMBED_DIM,
        dead_letters=str(folder / "letters.jsonl"),
    )
    frames | Enrich([KeywordEnricher()]) | sink
    return pipeline.to_runner_api()


@pytest.fixture
def proto(tmp_path, monkeypatch) -> Any:
    """The description of a job whose source has a token that is referred to."""
    monkeypatch.setenv("CRM_TOKEN", SECRET)
    connector = APIConnector(
        "http://localhost:1/api",
        name="crm",
        auth={"type": "bearer", "token": "env:CRM_TOKEN"},
        resources=[{"name": "things", "path": "pages", "paginator": "page"}],
    )
    return described(connector, tmp_path)


def pardos(proto: Any) -> list[Any]:
    """Returns the description of each function of a job."""
    return [
        beam_runner_api_pb2.ParDoPayload.FromString(one.spec.payload)
        for one in proto.components.transforms.values()
        if one.spec.urn == PARDO
    ]


def unpacked(payload: bytes) -> bytes:
    """Returns a pickled function as it was before Beam compressed it."""
    packed = base64.b64decode(payload)
    return zlib.decompress(packed) if packed[:1] == b"\x78" else bz2.decompress(packed)


def test_it_refers_to_secrets_and_holds_none(proto):
    functions = [unpacked(one.do_fn.payload) for one in pardos(proto)]
    assert any(b"env:CRM_TOKEN" in function for function in functions)
    assert not any(SECRET.encode() in function for function in functions)
    assert SECRET.encode() not in proto.SerializeToString()


def test_a_file_of_ones_own_travels_with_references_and_without_secrets(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "token").write_text(SECRET)
    cls = load_connector_class(f"{tmp_path / 'own.py'}:Own")
    connector = build_connector(cls, {"token": f"file:{tmp_path / 'token'}"})
    assert connector.token == SECRET  # looked up here as well, before the job is described
    proto = described(connector, tmp_path)
    functions = [unpacked(one.do_fn.payload) for one in pardos(proto)]
    assert any(b"class Own(" in function and b"file:" in function for function in functions)
    assert not any(SECRET.encode() in function for function in functions)
    assert SECRET.encode() not in proto.SerializeToString()


def test_no_step_has_a_side_input(proto):
    assert not any(one.side_inputs for one in pardos(proto))


def test_documents_are_written_by_the_worker_that_read_them(proto):
    _, stages = translations.create_and_optimize_stages(
        proto, phases=translations.standard_optimize_phases(), known_runner_urns=frozenset()
    )
    steps = {one.unique_name: one for stage in stages for one in stage.transforms}
    (fused,) = [
        {one.unique_name for one in stage.transforms}
        for stage in stages
        if any(one.unique_name == DOCUMENTS[0] for one in stage.transforms)
    ]
    assert fused >= {*DOCUMENTS, WRITER}
    documents = {output for name in DOCUMENTS for output in steps[name].outputs.values()}
    takers = {name for name, one in steps.items() if documents & set(one.inputs.values())}
    assert takers == {*DOCUMENTS[1:], WRITER}


def test_only_plans_and_descriptions_are_grouped(proto):
    grouped = [
        one.unique_name
        for one in proto.components.transforms.values()
        if one.spec.urn == "beam:transform:group_by_key:v1"
    ]
    assert sorted(grouped) == [
        "Read/Spread/ReshufflePerKey/GroupByKey",
        "WriteToLance/Together",
    ]
