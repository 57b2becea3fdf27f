"""`vertex:MODEL` against a service on this machine that speaks Vertex AI's REST form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from contextframe_beam.connectors.shared_files import DIRECTORY_VARIABLE
from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.embedders import EmbedderError, EmbedderRefusedError, load_embedder
from contextframe_beam.transforms.embedders import HashEmbedder, VertexEmbedder, embed_texts
from tests.support.embedding_server import EmbeddingServer, embedding_server, error, words

TEXTS = [f"{'word ' * (number % 7 + 1)}{number}" for number in range(40)]
MODEL = "/projects/shop/locations/europe-west1/publishers/google/models/text-embedding-005:predict"


@pytest.fixture(scope="module")
def pem() -> str:
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


@pytest.fixture
def service(tmp_path, monkeypatch) -> Iterator[EmbeddingServer]:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "state"))
    with embedding_server(key="ya29.token-of-google") as running:
        yield running


@pytest.fixture
def key(service, tmp_path, pem) -> str:
    """A service account whose tokens this service gives."""
    path = Path(tmp_path, "account.json")
    account = {
        "type": "service_account",
        "private_key": pem,
        "client_email": "embedder@shop.iam.gserviceaccount.com",
        "token_uri": f"{service.url}/token",
    }
    path.write_text(json.dumps(account))
    return f"file:{path}"


def embedder(service: EmbeddingServer, key: str, **settings: object) -> VertexEmbedder:
    usual = {"project": "shop", "location": "europe-west1", "dim": 16, "key": key}
    quick = {"backoff": 0.001}
    model = str(settings.pop("model", "text-embedding-005"))
    return VertexEmbedder(model, url=f"{service.url}/v1", client=quick, **{**usual, **settings})


def test_vectors_come_in_order_with_the_tokens_that_google_counts(service, key):
    found = embed_texts(embedder(service, key), TEXTS)
    assert np.abs(found.vectors - HashEmbedder("16").embed(TEXTS)).max() < 1e-6
    assert found.usage.tokens == sum(map(words, TEXTS))
    assert service.paths == ["/token", f"/v1{MODEL}"]


def test_what_is_asked_is_what_google_documents(service, key):
    model = embedder(service, key, dimensions=8, dim=None)
    model.embed(["a text"])
    model.embed(["a question"], kind="query")
    parameters = {"autoTruncate": False, "outputDimensionality": 8}
    assert service.requests == [
        {
            "instances": [{"content": "a text", "task_type": "RETRIEVAL_DOCUMENT"}],
            "parameters": parameters,
        },
        {
            "instances": [{"content": "a question", "task_type": "RETRIEVAL_QUERY"}],
            "parameters": parameters,
        },
    ]


def test_a_request_has_no_more_instances_than_it_may(service, key):
    texts = [f"text {number}" for number in range(260)]
    assert embedder(service, key).embed(texts).shape == (260, 16)
    assert sorted(len(one["instances"]) for one in service.requests) == [10, 250]


def test_gemini_gets_one_text_a_request(service, key):
    embedder(service, key, model="gemini-embedding-001").embed(TEXTS[:3])
    assert [len(one["instances"]) for one in service.requests] == [1, 1, 1]


def test_a_batch_that_is_too_much_is_halved(service, key):
    told = "The input token count is 25000 but the model supports up to 20000"
    model = embedder(service, key)
    model.embed(["warm up"])
    service.next = [(400, {}, {"error": {"code": 400, "message": told}})]
    assert embed_texts(model, TEXTS).errors == {}
    assert [len(one["instances"]) for one in service.requests] == [1, 40, 20, 20]


def test_a_text_that_was_cut_off_has_no_vector(service, key):
    def cut(answer):
        answer["predictions"][1]["embeddings"]["statistics"]["truncated"] = True
        return answer

    service.change = cut
    found = embed_texts(embedder(service, key), ["a", "bb"])
    assert list(found.errors) == [1]
    assert "cut the text off; it reads 2048 tokens" in str(found.errors[1])


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: {"predictions": answer["predictions"][:-1]},
        lambda answer: {"predictions": [{"values": [1.0]} for _ in answer["predictions"]]},
        lambda answer: {"predictions": None},
        lambda answer: {},
        lambda answer: [],
    ],
)
def test_an_answer_of_another_form_ends_everything(service, key, change):
    service.change = change
    with pytest.raises(EmbedderError, match="check the model"):
        embed_texts(embedder(service, key), TEXTS)


def test_an_account_that_may_not_ends_everything_at_once(service, key):
    model = embedder(service, key)
    model.embed(["warm up"])
    denied = {"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "denied on project"}}
    service.next = [(403, {}, denied)] * 9
    with pytest.raises(EmbedderRefusedError, match="denied on project"):
        model.embed(TEXTS)
    assert len(service.requests) == 2


def test_a_quota_of_a_minute_is_waited_for(service, key):
    model = embedder(service, key)
    model.embed(["warm up"])
    told = "Quota exceeded for aiplatform.googleapis.com/online_prediction_requests_per_base_model"
    service.next = [error(429, told, "RESOURCE_EXHAUSTED")]
    assert model.embed(TEXTS).shape == (40, 16)
    assert len(service.requests) == 3


@pytest.mark.parametrize(
    ("spec", "settings", "told"),
    [("vertex", {}, "say which model"), ("vertex:m", {}, "needs project")],
)
def test_what_is_missing_is_named(spec, settings, told):
    with pytest.raises(ConfigError, match=told):
        load_embedder(spec, **settings)
