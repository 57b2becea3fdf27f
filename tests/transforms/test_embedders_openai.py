"""`openai:MODEL` against a service on this machine: limits, faults, and whose fault they are."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from contextframe_beam.connectors.shared_files import DIRECTORY_VARIABLE
from contextframe_beam.errors import ConfigError, SecretError
from contextframe_beam.frames.embedders import (
    EmbedderError,
    EmbedderRefusedError,
    EmbeddingError,
    load_embedder,
)
from contextframe_beam.transforms.embedders import (
    HashEmbedder,
    OpenAIEmbedder,
    VectorCache,
    embed_texts,
)
from contextframe_beam.transforms.embedders.remote import TokenBudget
from contextframe_beam.transforms.embedders.tokens import estimated_tokens
from tests.support.embedding_server import EmbeddingServer, embedding_server, error, words
from tests.support.onnx_folder import write_tokenizer

TEXTS = [f"{'word ' * (number % 7 + 1)}{number}" for number in range(40)]
HASH = HashEmbedder("16")


@pytest.fixture
def service(tmp_path, monkeypatch) -> Iterator[EmbeddingServer]:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "state"))
    with embedding_server() as running:
        yield running


def embedder(service: EmbeddingServer, **settings) -> OpenAIEmbedder:
    quick = {"backoff": 0.001, "timeout": 20}
    settings = {"dim": 16, "client": quick, **settings}
    return OpenAIEmbedder("some-model", url=f"{service.url}/v1", **settings)


def near(vectors, texts=TEXTS) -> bool:
    return bool(np.abs(vectors - HASH.embed(texts)).max() < 1e-6)


class TestAnswers:
    def test_vectors_come_in_the_order_of_the_texts(self, service):
        found = embed_texts(embedder(service), TEXTS)
        assert near(found.vectors)
        assert found.usage.texts == 40
        assert found.usage.requests == 1
        assert found.usage.tokens == sum(map(words, TEXTS))

    def test_an_index_that_is_shuffled_is_put_in_order(self, service):
        def shuffled(answer):
            random.Random(1).shuffle(answer["data"])
            return answer

        service.change = shuffled
        assert near(embedder(service).embed(TEXTS))

    @pytest.mark.parametrize(
        "change", [lambda one: one.pop("index"), lambda one: one.update(index=0)]
    )
    def test_without_an_index_the_order_counts(self, service, change):
        def changed(answer):
            for one in answer["data"]:
                change(one)
            return answer

        service.change = changed
        assert near(embedder(service).embed(TEXTS))

    @pytest.mark.parametrize("knows", [None, False])
    def test_a_service_without_base64_gives_numbers(self, service, knows):
        service.base64 = knows
        model = embedder(service)
        assert near(model.embed(TEXTS))
        assert near(model.embed(TEXTS))
        assert len(service.requests) == (3 if knows is False else 2)

    def test_what_is_asked_is_what_openai_documents(self, service):
        embedder(service, dimensions=8, dim=None).embed(["a text"])
        assert service.paths == ["/v1/embeddings"]
        assert service.requests == [
            {
                "model": "some-model",
                "input": ["a text"],
                "dimensions": 8,
                "encoding_format": "base64",
            }
        ]

    def test_prefixes_are_put_before_texts_by_their_kind(self, service):
        model = embedder(service, query_prefix="query: ", passage_prefix="passage: ")
        model.embed(["a"])
        model.embed(["b"], kind="query")
        assert service.texts == ["passage: a", "query: b"]
        assert model.identity.fingerprint != embedder(service).identity.fingerprint

    def test_vectors_have_length_one_whatever_the_service_gives(self, service):
        service.base64 = None

        def scaled(answer):
            for one in answer["data"]:
                one["embedding"] = [7 * number for number in one["embedding"]]
            return answer

        service.change = scaled
        assert near(embedder(service).embed(TEXTS))

    def test_half_a_surrogate_pair_is_sent_as_text(self, service):
        embedder(service).embed(["a \ud800 b"])
        assert service.texts == ["a ? b"]

    def test_a_service_that_counts_no_tokens_has_them_estimated(self, service):
        service.change = lambda answer: {"data": answer["data"]}
        assert embed_texts(embedder(service), ["some words"]).usage.tokens > 1


class TestDimensions:
    def test_they_are_asked_once_when_nobody_says_them(self, service):
        model = embedder(service, dim=None)
        assert service.requests == []
        assert (model.dim, model.identity.dim) == (16, 16)
        assert len(service.requests) == 1

    def test_those_of_openai_s_own_models_are_known(self):
        assert load_embedder("openai:text-embedding-3-large", key="env:NO_KEY").dim == 3072

    def test_another_number_ends_everything(self, service):
        with pytest.raises(EmbedderError, match=r"16 dimensions, not 12.*another model"):
            embed_texts(embedder(service, dim=12), TEXTS)

    def test_another_address_of_the_same_model_is_the_same_embedder(self, service):
        here = embedder(service).identity
        with embedding_server() as other:
            assert embedder(other).identity == here


class TestBatches:
    def test_a_request_has_no_more_texts_than_it_may(self, service):
        assert near(embedder(service, batch_size=16).embed(TEXTS))
        assert sorted(len(one["input"]) for one in service.requests) == [8, 16, 16]

    def test_short_texts_share_a_request(self, service):
        embedder(service, batch_size=20).embed(TEXTS)
        longest = [max(map(len, one["input"])) for one in service.requests]
        shortest = [min(map(len, one["input"])) for one in service.requests]
        assert sorted(longest)[0] <= sorted(shortest)[1]

    def test_several_requests_are_under_way_at_once(self, service):
        service.together = threading.Barrier(2)
        assert near(embedder(service, batch_size=10).embed(TEXTS))
        assert len(service.requests) == 4

    def test_bytes_of_a_request_are_limited(self, service):
        texts = [f"{number} " + "ä" * 400_000 for number in range(4)]
        model = embedder(service)
        model.embed(texts)
        assert [len(one["input"]) for one in service.requests] == [1] * 4 or all(
            sum(len(text.encode()) for text in one["input"]) <= 2 << 20 for one in service.requests
        )

    def test_a_batch_that_is_too_much_is_halved(self, service):
        service.most_tokens = 60
        found = embed_texts(embedder(service), TEXTS)
        assert near(found.vectors)
        assert not found.errors
        assert found.usage.requests == len(service.requests) > 2
        assert found.usage.texts == 40

    def test_what_is_too_much_is_not_tried_again(self, service):
        service.most_texts = 10
        model = embedder(service)
        model.embed(TEXTS)
        service.requests.clear()
        assert near(model.embed(TEXTS))
        assert [len(one["input"]) for one in service.requests] == [10] * 4

    def test_one_text_that_is_too_long_is_its_own_error(self, service):
        service.longest = 50
        texts = [*TEXTS, "long " * 60]
        model = embedder(service)
        found = embed_texts(model, texts)
        assert list(found.errors) == [40]
        assert "maximum context length is 50" in str(found.errors[40])
        assert near(found.vectors[:40])
        # Others are not sent one by one for its sake.
        service.requests.clear()
        model.embed(TEXTS)
        assert len(service.requests) == 1

    @pytest.mark.parametrize(
        ("status", "told"),
        [
            (400, "This model's maximum context length is 8192 tokens, you requested 9000"),
            (400, "Invalid 'input': array too long. Expected at most 2048, got 4096"),
            (400, "Requested 345000 tokens, max 300000 tokens per request"),
            (400, "the input token count is 25000 but the model supports up to 20000"),
            (413, "payload"),
            (413, "Validation: `inputs` must have less than 512 tokens. Given: 600"),
            (422, "batch size 64 > maximum allowed batch size 32"),
            (400, "Input exceeds the maximum length of 2048"),
            (500, "input is too large to process. increase the physical batch size"),
            (429, "Request too large for model on tokens per min (TPM): Limit 30, Requested 90"),
        ],
    )
    def test_services_say_too_much_in_many_ways(self, service, status, told):
        service.next = [error(status, told)]
        found = embed_texts(embedder(service), TEXTS)
        assert near(found.vectors)
        assert [len(one["input"]) for one in service.requests] == [40, 20, 20]

    def test_a_text_that_the_service_does_not_like_is_its_own_error(self, service):
        service.refused = "poison"
        found = embed_texts(embedder(service), [*TEXTS, "some poison"])
        assert list(found.errors) == [40]
        assert "not to our liking" in str(found.errors[40])
        assert near(found.vectors[:40])


class TestFaults:
    def test_a_limit_of_requests_is_waited_for(self, service):
        service.next = [error(429, "Rate limit reached", Retry_After="0")] * 2
        found = embed_texts(embedder(service), TEXTS)
        assert near(found.vectors)
        assert found.usage.requests == 3

    def test_a_fault_that_passes_is_asked_again(self, service):
        service.next = [
            error(503, "overloaded"),
            error(500, "oops"),
            error(429, "Model is overloaded"),
        ]
        assert near(embedder(service).embed(TEXTS))

    @pytest.mark.parametrize("told", [{}, {"Content-Length": "5000"}])
    def test_an_answer_that_is_cut_off_is_asked_again(self, service, told):
        service.next = [(200, told, b'{"data": [{"index": 0, "embedding": "AAA'), (200, {}, b"")]
        assert near(embedder(service).embed(TEXTS))
        assert len(service.requests) == 3

    @pytest.mark.parametrize(
        ("status", "told", "code"),
        [
            (401, "Incorrect API key provided", "invalid_api_key"),
            (403, "You may not use this model", None),
            (402, "Payment required", None),
            (429, "You exceeded your current quota, please check your plan", "insufficient_quota"),
            (429, "Your credit balance is too low", None),
        ],
    )
    def test_refused_credentials_and_no_quota_end_everything_at_once(
        self, service, status, told, code
    ):
        service.next = [error(status, told, code, Retry_After="0")] * 20
        with pytest.raises(EmbedderRefusedError, match="check the key"):
            embed_texts(embedder(service, batch_size=4), TEXTS)
        assert len(service.requests) <= 4  # those that were under way

    def test_nothing_that_is_refused_becomes_an_error_of_a_text(self, service):
        service.next = [error(400, "model `some-model` is unknown")] * 100
        with pytest.raises(EmbedderError, match=r"some-model.*check the model"):
            embed_texts(embedder(service), TEXTS)
        assert len(service.requests) == 2

    @pytest.mark.parametrize("told", ["this model supports up to 16 dimensions", "file too large"])
    def test_a_setting_that_is_refused_like_a_long_text_is_no_error_of_a_text(self, service, told):
        service.next = [error(400, told)] * 100
        with pytest.raises(EmbedderError, match=r"check the model and the settings"):
            embed_texts(embedder(service), TEXTS)
        assert len(service.requests) < 10

    def test_an_address_that_is_none_says_what_to_check(self, service):
        model = OpenAIEmbedder("m", url=f"{service.url}/v2", dim=16)
        with pytest.raises(EmbedderError, match=r"404.*check the url and the model"):
            model.embed(["a"])

    def test_a_service_that_is_not_there_is_named(self):
        model = OpenAIEmbedder(
            "m", url="http://127.0.0.1:9/v1", dim=16, client={"retries": 0, "timeout": 1}
        )
        with pytest.raises(EmbedderError, match=r"openai:m.*127\.0\.0\.1:9"):
            model.embed(["a"])

    @pytest.mark.parametrize(
        "change",
        [
            lambda answer: {"data": answer["data"][:-1]},
            lambda answer: {"data": [*answer["data"], answer["data"][0]]},
            lambda answer: {
                "data": [{**one, "index": 1} if n else one for n, one in enumerate(answer["data"])]
            },
            lambda answer: {"data": [{**one, "embedding": "***"} for one in answer["data"]]},
            lambda answer: {"data": [{**one, "embedding": [[1.0] * 16]} for one in answer["data"]]},
            lambda answer: {"data": [{**one, "embedding": []} for one in answer["data"]]},
            lambda answer: {"data": [{**one, "embedding": None} for one in answer["data"]]},
            lambda answer: {"error": {"message": "no"}},
            lambda answer: [],
            lambda answer: None,
        ],
    )
    def test_an_answer_of_another_form_ends_everything(self, service, change):
        service.change = change
        with pytest.raises(EmbedderError):
            embed_texts(embedder(service), TEXTS)

    @pytest.mark.parametrize("number", [0.0, float("nan"), float("inf")])
    def test_a_vector_without_a_direction_is_an_error_of_its_text(self, service, number):
        service.base64 = None

        def broken(answer):
            answer["data"][0]["embedding"] = [number] * 16
            return answer

        service.change = broken
        found = embed_texts(embedder(service), ["a", "bb"])
        assert list(found.errors) == [0]
        assert found.vectors[1].any()

    def test_a_run_that_dies_does_not_pay_twice(self, service, tmp_path):
        model = embedder(service, batch_size=10, client={"retries": 0})
        cache = VectorCache(str(tmp_path / "kb.lance"), model.identity)
        service.next = []
        embed_texts(model, TEXTS[:20], cache=cache)
        service.next = [error(401, "revoked")] * 9
        with pytest.raises(EmbedderRefusedError):
            embed_texts(model, TEXTS, cache=cache)
        service.next = []
        service.requests.clear()
        again = VectorCache(str(tmp_path / "kb.lance"), model.identity)
        found = embed_texts(model, TEXTS, cache=again)
        assert near(found.vectors)
        assert (found.usage.texts, found.usage.reused) == (20, 20)

    def test_half_of_a_batch_that_went_through_is_kept(self, service, tmp_path):
        model = embedder(service)
        service.next = [error(400, "too many tokens")]
        service.change = lambda answer: (service.next.append(error(401, "revoked")), answer)[1]
        with pytest.raises(EmbedderRefusedError):
            embed_texts(model, TEXTS, cache=VectorCache(str(tmp_path / "kb"), model.identity))
        service.next, service.change = [], lambda answer: answer
        cache = VectorCache(str(tmp_path / "kb"), model.identity)
        assert embed_texts(model, TEXTS, cache=cache).usage.reused == 20


class TestSettings:
    def test_a_key_is_looked_up_and_never_told(self, service, monkeypatch):
        monkeypatch.setenv("EMBED_KEY", "sk-very-secret")
        service.key = "sk-very-secret"
        model = embedder(service, key="env:EMBED_KEY")
        assert near(model.embed(TEXTS))
        service.next = [error(401, "Incorrect API key provided: sk-very-secret")]
        with pytest.raises(EmbedderRefusedError) as caught:
            model.embed(["a"])
        assert "sk-very-secret" not in str(caught.value)

    def test_a_key_that_is_not_there_is_named(self, service):
        with pytest.raises(SecretError, match="NO_SUCH_KEY"):
            embedder(service, key="env:NO_SUCH_KEY").embed(["a"])

    def test_openai_itself_needs_a_key(self):
        with pytest.raises(ConfigError, match=r"needs a key.*env:OPENAI_API_KEY"):
            OpenAIEmbedder("text-embedding-3-small")

    def test_a_model_is_needed(self):
        with pytest.raises(ConfigError, match="say which model"):
            load_embedder("openai")

    def test_an_address_may_end_in_the_path_itself(self, service):
        assert OpenAIEmbedder("m", url=f"{service.url}/v1/embeddings/", dim=16).embed(["a"]).any()

    @pytest.mark.parametrize(
        "budget",
        [{"tokens_per_minute": 0}, {"tokens_per_minute": "many"}, {"per_secund": 1}, {"burst": 3}],
    )
    def test_a_budget_that_cannot_be_is_refused(self, service, budget):
        with pytest.raises(ConfigError):
            embedder(service, budget=budget)

    def test_a_tokenizer_of_the_model_counts_its_tokens(self, service, tmp_path):
        path = write_tokenizer(tmp_path / "tokenizer.json")
        model = embedder(service, tokenizer=str(path), passage_prefix="a ")
        assert model.count(["b c"]) == [5]


class TestEstimates:
    @pytest.mark.parametrize(
        ("text", "tokens"),  # as cl100k counts them
        [
            ("Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod " * 10, 131),
            ("getElementByIdAndClassNameOrFallbackToParentNode " * 12, 109),
            ("Zażółć gęślą jaźń, chrząszcz brzmi w trzcinie w Szczebrzeszynie " * 10, 331),
            (
                "Kansainvälisesti tunnustettujen lentokonesuihkuturbiinimoottoriapumekaanikkojen "
                * 8,
                257,
            ),
            ("هذا نص باللغة العربية لاختبار تقدير عدد الرموز " * 12, 397),
            ("이것은 한국어 문장입니다 토큰 수를 추정합니다 " * 15, 316),
            ("!@#$%^&*()_+{}|:<>?" * 40, 521),
            ("   a\t\t\tb" * 100, 400),
        ],
    )
    def test_they_are_rather_too_many_than_too_few(self, text, tokens):
        assert tokens <= estimated_tokens(text) <= 2.5 * tokens


class TestBudgets:
    def test_tokens_are_counted_over_all_that_share_a_name(self, tmp_path, monkeypatch):
        monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
        one, two = TokenBudget(10_000, "shared"), TokenBudget(10_000, "shared")
        one.take(6_000)
        two.take(4_000)
        # The minute is used up: the next one has to wait for its end.
        assert one._budget._opened().reserve() > 50
        assert TokenBudget(10_000, "another")._budget._opened().reserve() == 0

    def test_a_budget_limits_requests_and_tokens(self, service):
        budget = {"per_second": 1000, "tokens_per_minute": 50_000, "name": "both"}
        model = embedder(service, budget=budget)
        assert near(model.embed(TEXTS))
        model._tokens.take(50_000 - 50 * (sum(model.count(TEXTS)) // 50 + 1))
        assert model._tokens._budget._opened().reserve() > 50

    def test_a_batch_is_no_larger_than_a_minute_s_tokens(self, service):
        model = embedder(service, budget={"tokens_per_minute": 1000})
        assert model._limits.tokens == 1000

    def test_tokens_alone_limit_no_requests(self, service):
        assert near(embedder(service, budget={"tokens_per_minute": 10**6}).embed(TEXTS))


def test_an_error_is_one_that_a_caller_can_catch():
    assert issubclass(EmbedderRefusedError, EmbedderError)
    assert issubclass(EmbeddingError, ValueError)
    assert json.loads(json.dumps(error(400, "x")[2]))["error"]["message"] == "x"
