"""Embedders by name, what is recorded of them, and how texts become vectors in order."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.embedders import (
    Embedder,
    EmbedderError,
    EmbedderIdentity,
    EmbeddingError,
    embedder_names,
    load_embedder,
    split_name,
)
from contextframe_beam.transforms.embedders import (
    HashEmbedder,
    Usage,
    WordLlamaEmbedder,
    as_embedder,
    embed_texts,
)
from tests.support.cli_helpers import run_code

TEXTS = ["how to write a vignette", "a", "bananas are yellow", "how to write a vignette"]


class Lengths:
    """An embedder of one's own: length and first letter, and it notes what it was asked."""

    version = "1"
    dim = 2

    def __init__(self, refuse: str = "", wrong: object = None) -> None:
        self.calls: list[list[str]] = []
        self.refuse = refuse
        self.wrong = wrong

    def embed(self, texts):
        self.calls.append(list(texts))
        if self.wrong is not None:
            return self.wrong
        if self.refuse in texts:
            raise EmbeddingError(f"{self.refuse!r} is refused")
        return [[len(text), ord(text[0])] for text in texts]


class TestByName:
    def test_the_usual_ones_are_registered(self):
        assert embedder_names() == ["hash", "onnx", "openai", "vertex", "wordllama"]

    def test_a_model_stands_after_the_first_colon(self):
        assert split_name("onnx:/models/a:b") == ("onnx", "/models/a:b")
        assert split_name("wordllama") == ("wordllama", None)
        assert split_name(" hash:64 ") == ("hash", "64")

    def test_the_same_settings_give_the_same_object(self):
        assert load_embedder("hash:32") is load_embedder("hash:32")
        assert load_embedder("hash:32") is not load_embedder("hash:64")

    def test_one_model_is_loaded_by_many_threads(self):
        found = set()
        threads = [
            threading.Thread(target=lambda: found.add(id(load_embedder("wordllama:64"))))
            for _ in range(8)
        ]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert len(found) == 1

    def test_a_misspelt_name_is_answered_with_the_nearest(self):
        for spec in ("wordlama", "opanai:text-embedding-3-small", "hsah:Some"):
            with pytest.raises(ConfigError, match="did you mean"):
                load_embedder(spec)

    def test_an_unknown_setting_is_named(self):
        with pytest.raises(ConfigError, match=r"'hash:8' takes no setting 'url'"):
            load_embedder("hash:8", url="http://127.0.0.1")

    def test_settings_that_are_none_are_left_out(self):
        assert load_embedder("hash:8", url=None).dim == 8

    def test_a_dimension_that_is_known_is_checked(self):
        assert load_embedder("hash:8", dim=8).dim == 8
        with pytest.raises(ConfigError, match="'hash:8' has 8 dimensions, not 16"):
            load_embedder("hash:8", dim=16)

    def test_the_number_of_workers_matters_to_models_alone(self):
        assert load_embedder("hash:8", workers=2).dim == 8

    @pytest.mark.parametrize("spec", ["hash:0", "hash:1", "hash:many", "hash:٣", "hash:99999999"])
    def test_a_number_of_dimensions_that_cannot_be_is_refused(self, spec):
        with pytest.raises(ConfigError, match="number of dimensions"):
            load_embedder(spec)

    def test_a_colon_without_a_model_is_refused(self):
        with pytest.raises(ConfigError, match="no model after the colon"):
            load_embedder("hash:")

    def test_a_missing_package_is_named_with_its_extra(self):
        code = (
            "import sys; sys.modules['tokenizers'] = None\n"
            "from contextframe_beam.frames.embedders import load_embedder\n"
            "load_embedder('wordllama')"
        )
        assert "pip install 'contextframe-beam[embed]'" in run_code(code).err

    def test_a_forked_process_loads_its_own(self):
        # In a process of its own, because a fork of this one may hold locks of its threads.
        code = (
            "import os; from contextframe_beam.frames.embedders import load_embedder\n"
            "mine = load_embedder('hash:16'); child = os.fork()\n"
            "if child == 0: os._exit(0 if load_embedder('hash:16') is not mine else 1)\n"
            "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
        )
        assert run_code(code).out == "0\n"

    def test_finding_one_by_name_loads_no_model_and_no_beam(self):
        code = (
            "import sys, contextframe_beam.frames.embedders as e; e.load_embedder('hash')\n"
            "print([m for m in sys.modules if m.split('.')[0] in "
            "('apache_beam', 'tokenizers', 'onnxruntime', 'requests', 'lance')])"
        )
        assert run_code(code, executed=True).out == "[]\n"


class TestIdentity:
    def test_it_survives_json(self):
        identity = load_embedder("hash:32").identity
        assert EmbedderIdentity.from_json(identity.to_json()) == identity

    def test_what_a_later_release_adds_is_passed_over(self):
        told = {**json.loads(load_embedder("hash:32").identity.to_json()), "later": 1}
        assert EmbedderIdentity.from_json(json.dumps(told)).dim == 32

    @pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"name": 1}'])
    def test_anything_else_is_refused(self, text):
        with pytest.raises(ConfigError, match="not a record of an embedder"):
            EmbedderIdentity.from_json(text)

    def test_a_value_of_the_wrong_kind_is_refused(self):
        told = {**json.loads(load_embedder("hash:32").identity.to_json()), "dim": "32"}
        with pytest.raises(ConfigError, match="dim"):
            EmbedderIdentity.from_json(json.dumps(told))

    def test_it_says_how_it_is_loaded(self):
        assert load_embedder("hash:32").identity.spec == "hash:32"
        assert str(load_embedder("hash:32").identity).startswith("hash:32 (32 dimensions, ")

    def test_another_dimension_is_another_fingerprint(self):
        names = ["hash:32", "hash:64", "wordllama", "wordllama:64"]
        assert len({load_embedder(name).identity.fingerprint for name in names}) == 4


class TestVectors:
    @pytest.mark.parametrize("spec", ["hash", "wordllama", "wordllama:64"])
    def test_each_text_has_a_vector_of_length_one(self, spec):
        embedder = load_embedder(spec)
        vectors = embedder.embed(TEXTS)
        assert vectors.shape == (4, embedder.dim)
        assert vectors.dtype == np.float32
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)
        assert (vectors[0] == vectors[3]).all()

    @pytest.mark.parametrize("spec", ["hash", "wordllama"])
    def test_no_texts_give_no_vectors(self, spec):
        assert load_embedder(spec).embed([]).shape == (0, 256)

    @pytest.mark.parametrize("spec", ["hash", "wordllama"])
    @given(texts=st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=6))
    def test_a_vector_depends_on_its_text_alone(self, spec, texts):
        embedder = load_embedder(spec)
        together = embedder.embed(texts)
        for text, vector in zip(texts, together, strict=True):
            assert (embedder.embed([text])[0] == vector).all()

    @given(st.lists(st.text(min_size=1, max_size=30), max_size=5))
    def test_a_text_that_was_counted_has_the_same_vector(self, texts):
        embedder = load_embedder("wordllama:64")
        fresh = [embed_texts(embedder, [text]) for text in texts]
        counts = embedder.count(texts)
        counted = [embed_texts(embedder, [text]) for text in texts]
        assert [one.vectors.tolist() for one in counted] == [one.vectors.tolist() for one in fresh]
        assert [one.usage.tokens for one in counted] == counts

    def test_wordllama_gives_what_its_own_library_gives(self):
        code = (
            "import sys, json, wordllama, pathlib\n"
            "model = wordllama.WordLlama.load(disable_download=True,\n"
            "    cache_dir=pathlib.Path(wordllama.__file__).parent)\n"
            "print(json.dumps(model.embed(json.load(sys.stdin), norm=True).tolist()))"
        )
        texts = [*TEXTS, "Straße, 日本語, 🎉", "x " * 5000]
        theirs = np.array(run_code(code, told=json.dumps(texts)).json, np.float32)
        assert np.abs(load_embedder("wordllama").embed(texts) - theirs).max() < 1e-6

    def test_near_meanings_have_near_vectors(self):
        question, near, far = load_embedder("wordllama").embed(
            [
                "How do I write a package vignette?",
                "Writing package vignettes in R",
                "Bananas are yellow fruit",
            ]
        )
        assert question @ near > 0.7 > 0.1 > question @ far

    def test_a_text_that_no_alphabet_has_still_has_a_vector(self):
        for spec in ("hash", "wordllama"):
            vectors = load_embedder(spec).embed(["---", "\ud800", "\0", "🎉"])
            assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)

    def test_tokens_are_counted_as_the_model_does(self):
        assert load_embedder("hash").count(["one two", "---", ""]) == [2, 1, 1]
        few, many = load_embedder("wordllama").count(["one two", "Donaudampfschifffahrt"])
        assert few == 2 < many


class TestBatches:
    def test_equal_texts_are_embedded_once_and_short_ones_first(self):
        own = Lengths()
        found = embed_texts(as_embedder(own), ["bbb", "a", "bbb", "cc", "a"])
        assert own.calls == [["a", "cc", "bbb"]]
        assert found.usage.texts == 3
        assert (found.vectors[0] == found.vectors[2]).all()
        assert found.vectors[3] == pytest.approx(np.array([2, 99]) / math.hypot(2, 99))

    def test_a_text_that_is_refused_is_told_alone(self):
        found = embed_texts(as_embedder(Lengths(refuse="bad")), ["a", "bad", "cc", "bad"])
        assert list(found.errors) == [1, 3]
        assert "'bad' is refused" in str(found.errors[1])
        assert found.vectors[[0, 2]].all(axis=1).all()
        with pytest.raises(EmbeddingError, match="is refused"):
            found.whole()

    def test_an_empty_text_has_no_vector_and_is_not_sent(self):
        own = Lengths()
        found = embed_texts(as_embedder(own), ["", " \n", "a"])
        assert list(found.errors) == [0, 1]
        assert own.calls == [["a"]]

    @pytest.mark.parametrize("bad", [[[0.0, 0.0]], [[math.nan, 1.0]], [[math.inf, 1.0]]])
    def test_a_vector_without_a_direction_is_an_error_of_its_text(self, bad):
        found = embed_texts(as_embedder(Lengths(wrong=bad)), ["a"])
        assert list(found.errors) == [0]

    @pytest.mark.parametrize("bad", [[[1.0, 2.0, 3.0]], [[1.0, 2.0]] * 2, [1.0, 2.0], [["x", "y"]]])
    def test_vectors_of_another_shape_end_everything(self, bad):
        with pytest.raises(EmbedderError):
            embed_texts(as_embedder(Lengths(wrong=bad)), ["a"])

    def test_usage_is_added_up(self):
        one = embed_texts(load_embedder("hash"), ["a b", "c", "c"]).usage
        assert one == Usage(texts=2, tokens=3)
        assert one + Usage(reused=1, requests=2) == Usage(2, 1, 3, 2)


class LangChainLike:
    """What LangChain calls Embeddings."""

    model = "some-model"

    def embed_documents(self, texts):
        return [[3.0, 4.0] for _ in texts]

    def embed_query(self, text):
        return [4.0, 3.0]


def beam_manager():
    """An EmbeddingsManager of Beam around a model that is a dictionary."""
    from apache_beam.ml.inference.base import ModelHandler
    from apache_beam.ml.transforms.base import EmbeddingsManager

    class Handler(ModelHandler):
        loads = 0

        def load_model(self):
            type(self).loads += 1
            return {"dim": 3}

        def run_inference(self, batch, model, inference_args=None):
            return [np.full(model["dim"], len(text), np.float32) for text in batch]

    class Manager(EmbeddingsManager):
        def get_model_handler(self):
            return Handler()

        def get_ptransform_for_processing(self, **kwargs):
            raise NotImplementedError

    return Manager(columns=["text"]), Handler


class TestOfOthers:
    def test_one_of_langchain_is_taken_as_it_is(self):
        embedder = as_embedder(LangChainLike())
        assert isinstance(embedder, Embedder)
        assert embedder.embed(["x"]) == pytest.approx(np.array([[0.6, 0.8]]))
        assert embedder.embed(["x"], kind="query") == pytest.approx(np.array([[0.8, 0.6]]))
        assert embedder.identity.model == "some-model"
        assert embedder.dim == 2

    def test_one_of_beam_is_taken_as_it_is_and_loaded_once(self):
        manager, handler = beam_manager()
        embedder = as_embedder(manager)
        assert embed_texts(embedder, ["a", "bb"]).vectors.shape == (2, 3)
        assert handler.loads == 1

    def test_a_class_of_ones_own_is_named_by_its_module(self):
        embedder = load_embedder(f"{__name__}:Lengths", refuse="x")
        assert embedder.identity.name == f"{__name__}:Lengths"
        assert embedder.dim == 2
        assert embed_texts(embedder, ["x", "y"]).errors.keys() == {0}

    def test_its_version_tells_its_vectors_from_others(self):
        class Newer(Lengths):
            version = "2"

        one = as_embedder(Lengths(), name="own").identity
        assert as_embedder(Lengths(), name="own").identity == one
        assert as_embedder(Newer(), name="own").identity.fingerprint != one.fingerprint

    def test_without_a_version_its_source_does(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(str(tmp_path))
        found = []
        for name, number in (("own_a", 1), ("own_b", 2)):
            Path(tmp_path, f"{name}.py").write_text(
                f"class Own:\n    dim = 2\n    def embed(self, texts):\n"
                f"        return [[{number}, 1]] * len(texts)\n"
            )
            own = load_embedder(f"{name}:Own")
            found.append(as_embedder(own._given, name="own").identity.fingerprint)
        assert found[0] != found[1]

    def test_one_that_cannot_be_made_says_why(self):
        with pytest.raises(ConfigError, match=r"Lengths cannot be made.*'colour'|takes no setting"):
            load_embedder(f"{__name__}:Lengths", colour="red")

    def test_one_of_ones_own_is_found_again_by_what_is_recorded(self):
        identity = load_embedder(f"{__name__}:LangChainLike").identity
        assert load_embedder(identity.spec).identity == identity

    @pytest.mark.parametrize(
        ("spec", "told"),
        [
            ("no.such.module:Class", "importing no.such.module failed"),
            (f"{__name__}:Lenghts", "did you mean Lengths"),
            (f"{__name__}:TEXTS", "which is not an embedder"),
            ("collections:Counter", "which is not an embedder"),
        ],
    )
    def test_what_is_none_is_refused(self, spec, told):
        with pytest.raises(ConfigError, match=told):
            load_embedder(spec)


def test_the_names_that_python_users_import_are_there():
    assert HashEmbedder("8").dim == 8
    assert WordLlamaEmbedder("64").dim == 64
