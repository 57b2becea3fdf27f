"""Search by words, by meaning and by both: over chunks and documents, with filters and context."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam import ConfigError, FrameDataset, FrameRecord
from contextframe_beam.frames.record import uuid_of
from tests.support.search_helpers import DIM, frames_of, hash_embedder, make_library

GUIDE = {
    "install.md": [
        "Install the program with the package manager.",
        "On Linux the package is called walrus.",
        "On other systems build the program from source.",
    ],
    "use.md": [
        "Start the program and open a file.",
        "A walrus file holds many tables.",
        "Close the file before another program opens the walrus.",
    ],
    "colours.md": ["The theme has red, green and blue colours."],
}
EMBEDDER = hash_embedder()


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> FrameDataset:
    return make_library(str(tmp_path_factory.mktemp("guide") / "kb.lance"), GUIDE)


@pytest.fixture
def kb(tmp_path: Path) -> FrameDataset:
    return make_library(str(tmp_path / "kb.lance"), GUIDE)


def ids(found: Sequence[FrameRecord]) -> list[str | None]:
    return [record.unique_id for record in found]


class TestWhatIsRanked:
    def test_a_document_with_chunks_is_found_by_them_alone(self, guide):
        assert set(ids(guide.search("walrus"))) == {
            "install.md#chunk=1", "use.md#chunk=1", "use.md#chunk=2",
        }  # fmt: skip

    def test_a_document_without_chunks_is_found_itself(self, kb):
        kb.add(FrameRecord("A walrus that nobody has cut.", unique_id="whole.md"))
        assert "whole.md" in ids(kb.search("walrus"))
        assert len(kb.search("walrus")) == 4

    @pytest.mark.parametrize("where", ["uri = 'use.md'", {"uri": "use.md"}, "x_parent IS NULL"])
    def test_a_document_is_found_where_the_filter_leaves_out_its_chunks(self, guide, where):
        assert "use.md" in ids(guide.search("tables", where=where))

    def test_as_many_are_found_as_asked_however_many_documents_stand_between(self, tmp_path):
        library = {f"{n}.md": ["walrus " * 30, f"walrus {n}"] for n in range(40)}
        dataset = make_library(str(tmp_path / "kb.lance"), library)
        for limit in (1, 7, 50, 80):
            found = dataset.search("walrus", limit=limit)
            assert len(found) == limit
            assert all(record.parent for record in found)

    def test_hits_are_the_stored_records(self, guide):
        for hit in guide.search("walrus"):
            assert guide.get(hit.unique_id) == hit


class TestByMeaning:
    def test_the_nearest_by_the_recorded_metric_come_first(self, guide):
        query = EMBEDDER.embed(["open the walrus file"], "query")[0]
        chunks = [text for texts in GUIDE.values() for text in texts]
        near = EMBEDDER.embed(chunks) @ query
        found = guide.search("open the walrus file", vector=True)
        assert [hit.text_content for hit in found] == [chunks[n] for n in np.argsort(-near)]
        assert [hit.score for hit in found] == pytest.approx(sorted(near, reverse=True), abs=1e-5)

    def test_nearest_takes_a_vector_and_gives_the_distance(self, guide):
        query = EMBEDDER.embed(["open the walrus file"], "query")[0]
        by_text = guide.search("open the walrus file", vector=True)
        by_vector = guide.nearest(query)
        assert ids(by_vector) == ids(by_text)
        assert [hit.score for hit in by_vector] == pytest.approx([1 - h.score for h in by_text])

    def test_what_is_found_by_meaning_need_hold_no_word(self, guide):
        assert "colours.md#chunk=0" in ids(guide.search("walrus", vector=True))
        assert "colours.md#chunk=0" not in ids(guide.search("walrus"))


class TestHybrid:
    @pytest.mark.parametrize("text", ["walrus file", "build the program", "colours walrus"])
    def test_the_score_is_the_sum_of_reciprocal_ranks(self, guide, text):
        scores: dict[str, float] = defaultdict(float)
        for ranking in (guide.search(text), guide.search(text, vector=True)):
            for place, hit in enumerate(ranking, 1):
                scores[hit.unique_id] += 1 / (60 + place)
        found = guide.search(text, hybrid=True)
        assert {hit.unique_id: hit.score for hit in found} == pytest.approx(dict(scores))
        assert [hit.score for hit in found] == sorted(scores.values(), reverse=True)

    def test_what_stands_in_both_rankings_comes_before_what_leads_one(self, tmp_path):
        library = {
            "words.md": ["gopher gopher gopher zebra zebra zebra quokka"],
            "both.md": ["gopher tunnel"],
            "far.md": ["other things entirely"],
        }
        dataset = make_library(str(tmp_path / "kb.lance"), library)
        assert dataset.search("gopher tunnel", hybrid=True)[0].unique_id == "both.md#chunk=0"

    def test_limit_holds(self, guide):
        assert len(guide.search("walrus program", hybrid=True, limit=2)) == 2

    @settings(max_examples=20)
    @given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
    def test_any_text_can_be_asked(self, guide, text):
        if text.strip():
            assert guide.search(text, hybrid=True)

    def test_both_at_once_is_refused(self, guide):
        with pytest.raises(ConfigError, match="by meaning only"):
            guide.search("walrus", hybrid=True, vector=True)


class TestParents:
    @pytest.mark.parametrize("way", [{}, {"vector": True}, {"hybrid": True}])
    def test_each_document_is_there_once_by_its_best_passage(self, guide, way):
        found = guide.search("walrus file", parents=True, **way)
        every = guide.search("walrus file", **way)
        best = {hit.parent: hit.unique_id for hit in reversed(every)}
        assert ids(found) == [hit.unique_id for hit in every if best[hit.parent] == hit.unique_id]

    @pytest.mark.parametrize("way", [{}, {"vector": True}, {"hybrid": True}])
    def test_as_many_documents_are_found_as_asked(self, tmp_path, way):
        library = {"long.md": [f"walrus {n}" for n in range(200)]}
        library |= {f"{n}.md": ["a walrus among many other words"] for n in range(5)}
        dataset = make_library(str(tmp_path / "kb.lance"), library)
        found = dataset.search("walrus", parents=True, limit=6, **way)
        assert len({hit.parent for hit in found}) == len(found) == 6

    def test_documents_without_chunks_count_as_well(self, kb):
        kb.add(FrameRecord("A walrus that nobody has cut.", unique_id="whole.md"))
        found = kb.search("walrus", parents=True)
        assert len(found) == 3
        assert "whole.md" in ids(found)


class TestContext:
    @pytest.mark.parametrize("count", [0, 1, 2, 5])
    def test_the_chunks_around_a_hit_come_with_it_in_order(self, guide, count):
        texts = GUIDE["use.md"]
        for hit in guide.search("tables OR walrus", where={"source_file": "use.md"}, context=count):
            place = hit.metadata["position"]
            before, after = texts[max(place - count, 0) : place], texts[place + 1 :][:count]
            assert [one.text_content for one in hit.before] == before
            assert [one.text_content for one in hit.after] == after
            assert hit.passage == "\n\n".join([*before, texts[place], *after])

    def test_a_filter_leaves_them_alone(self, guide):
        [hit] = guide.search("tables", where="position = 1", context=1)
        assert [one.metadata["position"] for one in (*hit.before, *hit.after)] == [0, 2]

    def test_a_document_has_none(self, kb):
        kb.add(FrameRecord("An okapi.", {"position": 1}, unique_id="whole.md"))
        [hit] = kb.search("okapi", context=2)
        assert (hit.before, hit.after, hit.passage) == ([], [], "An okapi.")

    @pytest.mark.parametrize("count", [-1, 1.5, "1"])
    def test_only_a_count_is_taken(self, guide, count):
        with pytest.raises(ConfigError, match="context is"):
            guide.search("walrus", context=count)


class TestTheEmbedder:
    def test_another_one_than_the_recorded_is_refused_with_both_names(self, guide):
        with pytest.raises(ConfigError, match=r"are of hash:64 .* embedded by hash:32"):
            guide.search("walrus", hybrid=True, embedder="hash:32")

    def test_the_recorded_one_may_be_given(self, guide):
        for embedder in ("hash:64", EMBEDDER):
            assert guide.search("walrus", vector=True, embedder=embedder)

    def test_without_a_record_it_has_to_be_given(self, tmp_path):
        dataset = make_library(str(tmp_path / "kb.lance"), GUIDE, recorded=False)
        with pytest.raises(ConfigError, match="does not say which embedder made its vectors"):
            dataset.search("walrus", vector=True)
        assert dataset.search("walrus", vector=True, embedder=f"hash:{DIM}")
        with pytest.raises(ConfigError, match="have 64 dimensions, and those of hash:32 have 32"):
            dataset.search("walrus", hybrid=True, embedder="hash:32")

    def test_a_dataset_without_vectors_says_so(self, tmp_path):
        dataset = FrameDataset.create(str(tmp_path / "kb.lance"), embed_dim=DIM)
        dataset.add(FrameRecord("A walrus.", unique_id="a"))
        with pytest.raises(ConfigError, match="holds no vectors"):
            dataset.search("walrus", hybrid=True)

    def test_what_is_no_embedder_is_refused(self, guide):
        with pytest.raises(ConfigError, match="the embedder is int, which has no identity"):
            guide.search("walrus", vector=True, embedder=7)

    def test_settings_that_it_does_not_take_are_refused(self, guide):
        with pytest.raises(ConfigError, match="takes no setting 'url'"):
            guide.search("walrus", vector=True, embed_url="http://127.0.0.1:1")


def test_an_earlier_version_is_searched_by_meaning_as_it_was(kb):
    version = kb.version
    kb.add_many(frames_of("new.md", ["A walrus, new."], EMBEDDER))
    earlier = FrameDataset.open(kb.uri, version=version)
    assert "new.md#chunk=0" in ids(kb.search("A walrus, new.", hybrid=True))
    assert "new.md#chunk=0" not in ids(earlier.search("A walrus, new.", hybrid=True))


def test_chunks_of_a_document_that_is_not_stored_are_found(tmp_path):
    dataset = make_library(str(tmp_path / "kb.lance"), {})
    dataset.add_many(frames_of("lost.md", ["One walrus.", "Two."], EMBEDDER)[1:])
    [hit] = dataset.search("walrus", parents=True, context=1)
    assert hit.parent == uuid_of("lost.md")
    assert [one.text_content for one in hit.after] == ["Two."]


def test_nothing_near_is_explained_where_there_are_no_vectors(tmp_path, caplog):
    dataset = FrameDataset.create(str(tmp_path / "kb.lance"), embed_dim=2)
    dataset.add(FrameRecord("a", unique_id="a"))
    assert dataset.nearest([1.0, 0.0]) == []
    assert "has a vector; embed them" in caplog.text
