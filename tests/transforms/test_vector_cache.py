"""Vectors beside a dataset: kept by many, found again, and never wrong."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam.errors import ConfigError, DatasetError
from contextframe_beam.frames.embedders import load_embedder
from contextframe_beam.transforms.embedders import VectorCache, embed_texts
from contextframe_beam.transforms.embedders.batching import text_key
from contextframe_beam.transforms.embedders.vector_cache import remove_vectors
from tests.support.cli_helpers import run_code, start_code
from tests.support.s3_server import BUCKET

HASH = load_embedder("hash:16")
TEXTS = [f"text number {number}" for number in range(40)]
KEYS = [text_key(text) for text in TEXTS]


def cache_at(path: object) -> VectorCache:
    return VectorCache(str(path), HASH.identity)


def filled(path: object, texts: list[str] = TEXTS) -> VectorCache:
    cache = cache_at(path)
    embed_texts(HASH, texts, cache=cache)
    cache.flush()
    return cache


def segments(path: Path) -> list[Path]:
    return sorted(Path(f"{path}.vectors", HASH.identity.fingerprint).iterdir())


def test_another_process_finds_what_one_has_kept(tmp_path):
    filled(tmp_path / "kb.lance")
    found = embed_texts(HASH, TEXTS, cache=cache_at(tmp_path / "kb.lance"))
    assert (found.usage.texts, found.usage.reused) == (0, 40)
    assert (found.vectors == HASH.embed(TEXTS)).all()


def test_only_what_is_missing_is_embedded(tmp_path):
    filled(tmp_path / "kb.lance", TEXTS[:30])
    found = embed_texts(HASH, TEXTS[::-1], cache=cache_at(tmp_path / "kb.lance"))
    assert (found.usage.texts, found.usage.reused) == (10, 30)
    assert (found.vectors == HASH.embed(TEXTS[::-1])).all()


def test_what_is_not_written_yet_is_found_by_the_same_process(tmp_path):
    cache = cache_at(tmp_path / "kb.lance")
    cache.put(KEYS[:1], HASH.embed(TEXTS[:1]))
    assert list(cache.get(KEYS)) == [0]
    assert len(cache) == 1


def test_a_question_is_not_kept(tmp_path):
    cache = cache_at(tmp_path / "kb.lance")
    embed_texts(HASH, TEXTS, kind="query", cache=cache)
    assert len(cache) == 0


def test_a_dataset_without_vectors_has_no_folder(tmp_path):
    cache = cache_at(tmp_path / "kb.lance")
    assert cache.get(KEYS) == {}
    cache.flush()
    assert list(tmp_path.iterdir()) == []


def test_another_embedder_has_its_own(tmp_path):
    filled(tmp_path / "kb.lance")
    other = load_embedder("hash:32")
    cache = VectorCache(str(tmp_path / "kb.lance"), other.identity)
    assert cache.get(KEYS) == {}


def test_a_refresh_takes_in_what_others_have_written(tmp_path):
    mine = cache_at(tmp_path / "kb.lance")
    assert mine.get(KEYS) == {}
    filled(tmp_path / "kb.lance")
    mine.refresh()
    assert len(mine.get(KEYS)) == 40


@given(cut=st.integers(0, 3000))
def test_a_segment_that_is_cut_off_gives_right_vectors_or_none(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "kb.lance"
    filled(path)
    (segment,) = segments(path)
    data = segment.read_bytes()
    segment.write_bytes(data[: min(cut, len(data) - 1)])
    for place, vector in cache_at(path).get(KEYS).items():
        assert (vector == HASH.embed([TEXTS[place]])[0]).all()


@given(at=st.integers(0, 3571), bit=st.integers(0, 7))
def test_a_damaged_segment_gives_right_vectors_or_none(tmp_path_factory, at, bit):
    path = tmp_path_factory.mktemp("damaged") / "kb.lance"
    filled(path)
    (segment,) = segments(path)
    data = bytearray(segment.read_bytes())
    data[at % len(data)] ^= 1 << bit
    segment.write_bytes(data)
    found = cache_at(path).get(KEYS)
    assert len(found) < 40
    for place, vector in found.items():
        assert (vector == HASH.embed([TEXTS[place]])[0]).all()


def test_what_is_no_segment_is_passed_over(tmp_path):
    path = tmp_path / "kb.lance"
    filled(path)
    folder = segments(path)[0].parent
    (folder / "empty").touch()
    (folder / "other").write_text("not ours")
    (folder / "folder").mkdir()
    assert len(cache_at(path).get(KEYS)) == 40


def test_many_threads_and_processes_write_at_once(tmp_path):
    path = tmp_path / "kb.lance"
    code = (
        "import sys\n"
        "from tests.transforms.test_vector_cache import filled\n"
        "number = int(sys.argv[2])\n"
        "filled(sys.argv[1], [f'process {number} text {n}' for n in range(200)])"
    )
    processes = [start_code(code, path, number) for number in range(2)]
    shared = cache_at(path)
    threads = [
        threading.Thread(
            target=lambda n=n: embed_texts(
                HASH, [f"thread {n} {m}" for m in range(300)], cache=shared
            )
        )
        for n in range(4)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    shared.flush()
    assert [one.wait() for one in processes] == [0, 0]
    texts = [f"process {n} text {m}" for n in range(2) for m in range(200)]
    texts += [f"thread {n} {m}" for n in range(4) for m in range(300)]
    found = embed_texts(HASH, texts, cache=cache_at(path))
    assert (found.usage.texts, found.usage.reused) == (0, 1600)
    assert (found.vectors == HASH.embed(texts)).all()


def test_a_process_that_is_killed_leaves_what_it_had_written(tmp_path):
    path = tmp_path / "kb.lance"
    code = (
        "import os, sys\n"
        "from tests.transforms.test_vector_cache import HASH, cache_at, embed_texts\n"
        "cache = cache_at(sys.argv[1])\n"
        "embed_texts(HASH, [f'text {n}' for n in range(1000)], cache=cache)\n"
        f"os.kill(os.getpid(), {int(signal.SIGKILL)})"
    )
    assert run_code(code, path).code == -signal.SIGKILL
    again = embed_texts(HASH, [f"text {n}" for n in range(1000)], cache=cache_at(path))
    assert again.usage.reused >= 1000 - 256


def test_an_error_keeps_what_was_paid_for_before(tmp_path):
    path = tmp_path / "kb.lance"

    class Fails:
        identity, dim, max_tokens = HASH.identity, HASH.dim, None
        calls = 0

        def count(self, texts):
            return [1] * len(texts)

        def embed(self, texts, kind="passage"):
            self.calls += 1
            if self.calls == 2:
                raise ConnectionError("the network is gone")
            return HASH.embed(texts)

    with pytest.raises(ConnectionError):
        embed_texts(Fails(), [f"text {n}" for n in range(100)], cache=cache_at(path))
    assert len(cache_at(path).get([text_key(f"text {n}") for n in range(100)])) == 64


def test_more_keys_than_are_held_one_by_one_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr("contextframe_beam.transforms.embedders.vector_cache._MOST_LOOSE", 30)
    path = tmp_path / "kb.lance"
    for start in range(0, 40, 7):
        filled(path, TEXTS[start : start + 7])
    cache = cache_at(path)
    assert sorted(cache.get([*KEYS, text_key("none")])) == list(range(40))
    assert len(cache) == 40


def test_segments_are_read_again_when_memory_is_short(tmp_path, monkeypatch):
    monkeypatch.setattr("contextframe_beam.transforms.embedders.vector_cache._MOST_HELD", 1)
    path = tmp_path / "kb.lance"
    for start in range(0, 40, 7):
        filled(path, TEXTS[start : start + 7])
    found = embed_texts(HASH, TEXTS, cache=cache_at(path))
    assert (found.vectors == HASH.embed(TEXTS)).all()


def test_a_cache_that_another_run_removes_is_made_again(tmp_path):
    path = tmp_path / "kb.lance"
    cache = filled(path, TEXTS[:20])
    assert remove_vectors(str(path))
    assert embed_texts(HASH, TEXTS[:20], cache=cache_at(path)).usage.reused == 0
    found = embed_texts(HASH, TEXTS, cache=cache)
    assert (found.vectors == HASH.embed(TEXTS)).all()
    cache.flush()
    assert len(cache_at(path).get(KEYS[20:])) == 20


def test_removing_takes_all_or_those_of_one_embedder(tmp_path):
    path = tmp_path / "kb.lance"
    filled(path)
    other = load_embedder("hash:32")
    kept = VectorCache(str(path), other.identity)
    embed_texts(other, TEXTS, cache=kept)
    kept.flush()
    assert remove_vectors(str(path), identity=HASH.identity)
    assert len(VectorCache(str(path), other.identity).get(KEYS)) == 40
    assert remove_vectors(str(path))
    assert not Path(f"{path}.vectors").exists()
    assert not remove_vectors(str(path))


def test_a_folder_that_cannot_be_written_is_an_error_with_its_name(tmp_path):
    (tmp_path / "kb.lance.vectors").write_text("in the way")
    cache = cache_at(tmp_path / "kb.lance")
    cache.put(KEYS, HASH.embed(TEXTS))
    with pytest.raises(DatasetError, match=r"kb\.lance\.vectors.*run without the cache"):
        cache.flush()


def test_an_address_that_nothing_opens_is_refused():
    with pytest.raises(ConfigError, match="run without the cache"):
        VectorCache("nosuch://bucket/kb.lance", HASH.identity)


def test_it_works_on_an_object_store(s3):
    address = f"s3://{BUCKET}/vectors/kb.lance"
    filled = VectorCache(address, HASH.identity, s3.options)
    embed_texts(HASH, TEXTS, cache=filled)
    filled.flush()
    cache = VectorCache(address, HASH.identity, s3.options)
    found = embed_texts(HASH, TEXTS, cache=cache)
    assert (found.usage.texts, found.usage.reused) == (0, 40)
    assert (found.vectors == HASH.embed(TEXTS)).all()
    assert remove_vectors(address, s3.options)
    assert not remove_vectors(address, s3.options)
