"""`onnx:FOLDER`: pooling, normalisation, prefixes and limits, as the folder of a model says."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.embedders import load_embedder
from contextframe_beam.transforms.embedders import OnnxEmbedder, embed_texts
from tests.support.cli_helpers import run_code
from tests.support.onnx_folder import DIM, TABLE, WORDS, write_folder

CLS, SEP = TABLE[2], TABLE[3]


def of(*words: str) -> np.ndarray:
    """The vectors of the tokens of a text, [CLS] and [SEP] around it."""
    return np.stack([CLS, *(TABLE[WORDS.index(word)] for word in words), SEP])


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def pooling(**config: object) -> dict[str, object]:
    kinds = ["Transformer", "Pooling", "Normalize"]
    modules = [
        {"path": "1_Pooling" if kind == "Pooling" else "", "type": f"sentence_transformers.{kind}"}
        for kind in kinds
    ]
    return {"modules": modules, "1_Pooling__config": config}


def test_a_network_alone_is_pooled_by_the_mean_and_normalised(tmp_path):
    model = OnnxEmbedder(str(write_folder(tmp_path)))
    found = model.embed(["a b", "c"])
    assert found[0] == pytest.approx(unit(of("a", "b").mean(axis=0)), abs=1e-6)
    assert found[1] == pytest.approx(unit(of("c").mean(axis=0)), abs=1e-6)
    assert (model.dim, model.max_tokens) == (DIM, 512)
    assert (model.identity.metric, model.identity.normalised) == ("cosine", True)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"pooling_mode_mean_tokens": True}, of("a", "b").mean(axis=0)),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, CLS),
        ({"pooling_mode_max_tokens": True}, of("a", "b").max(axis=0)),
        ({"pooling_mode_lasttoken": True}, SEP),
        ({"pooling_mode": "cls"}, CLS),
    ],
)
def test_the_folder_says_how_tokens_are_pooled(tmp_path, config, expected):
    model = OnnxEmbedder(str(write_folder(tmp_path, **pooling(**config))))
    # Beside a longer text, so that it is filled up.
    assert model.embed(["a b", "a b c d a b"])[0] == pytest.approx(unit(expected), abs=1e-6)


@pytest.mark.parametrize(
    ("output", "dims"), [("sentence_embedding", 2), ("pooled", 2), ("token_embeddings", 3)]
)
def test_the_output_is_chosen_by_its_name_or_form(tmp_path, output, dims):
    model = OnnxEmbedder(str(write_folder(tmp_path, output=output, dims=dims)))
    expected = CLS if dims == 2 else of("a").mean(axis=0)
    assert model.embed(["a"])[0] == pytest.approx(unit(expected), abs=1e-6)


@pytest.mark.parametrize(
    "inputs",
    [("input_ids",), ("input_ids", "attention_mask", "token_type_ids", "position_ids")],
)
def test_the_network_gets_what_it_takes(tmp_path, inputs):
    assert OnnxEmbedder(str(write_folder(tmp_path, inputs=inputs))).embed(["a"]).shape == (1, DIM)


def test_prefixes_tell_questions_from_passages(tmp_path):
    told = {"prompts": {"query": "query: ", "passage": "passage: "}}
    model = OnnxEmbedder(str(write_folder(tmp_path, config_sentence_transformers=told)))
    passage, query = (model.embed(["a"], kind=kind)[0] for kind in ("passage", "query"))
    assert passage == pytest.approx(unit(of("passage", ":", "a").mean(axis=0)), abs=1e-6)
    assert query == pytest.approx(unit(of("query", ":", "a").mean(axis=0)), abs=1e-6)
    assert model.count(["a"]) == [5]


@pytest.mark.parametrize(("told", "metric"), [("dot", "dot"), ("euclidean", "l2")])
def test_lengths_stay_where_they_count(tmp_path, told, metric):
    folder = write_folder(
        tmp_path,
        config_sentence_transformers={"similarity_fn_name": told},
        modules=[{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}],
    )
    model = OnnxEmbedder(str(folder))
    assert (model.identity.metric, model.identity.normalised) == (metric, False)
    assert model.embed(["a"])[0] == pytest.approx(of("a").mean(axis=0), abs=1e-6)


def test_a_text_that_is_too_long_is_an_error_and_never_cut_off(tmp_path):
    folder = write_folder(tmp_path, sentence_bert_config={"max_seq_length": 6})
    model = OnnxEmbedder(str(folder))
    found = embed_texts(model, ["a b c d", "a b c d a"])
    assert list(found.errors) == [1]
    assert "has 7 tokens" in str(found.errors[1])
    assert found.vectors[0].any()


def test_the_longest_text_is_found_in_one_of_three_files(tmp_path):
    folder = write_folder(tmp_path, config={"max_position_embeddings": 64})
    assert OnnxEmbedder(str(folder)).max_tokens == 64
    write_folder(tmp_path, tokenizer_config={"model_max_length": 32})
    assert OnnxEmbedder(str(folder)).max_tokens == 32
    write_folder(tmp_path, tokenizer_config={"model_max_length": 1e30})
    assert OnnxEmbedder(str(folder)).max_tokens == 64


def test_the_file_may_stand_in_a_folder_of_its_own(tmp_path):
    write_folder(tmp_path, name="onnx/model.onnx")
    assert load_embedder(f"onnx:{tmp_path}").embed(["a"]).any()


def test_files_tell_models_apart_and_their_place_does_not(tmp_path):
    one = OnnxEmbedder(str(write_folder(tmp_path / "one"))).identity
    same = OnnxEmbedder(str(write_folder(tmp_path / "same"))).identity
    other = OnnxEmbedder(str(write_folder(tmp_path / "other", dims=2))).identity
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_weights_in_a_file_of_their_own_tell_models_apart(tmp_path):
    folder = write_folder(tmp_path)
    before = OnnxEmbedder(str(folder)).identity
    (folder / "unrelated.bin").write_bytes(b"1")
    assert OnnxEmbedder(str(folder)).identity == before
    # A network names the files of its weights.
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes() + b"\x32\x0bweights.bin")
    (folder / "weights.bin").write_bytes(b"1")
    one = OnnxEmbedder(str(folder)).identity
    (folder / "weights.bin").write_bytes(b"2")
    assert OnnxEmbedder(str(folder)).identity.fingerprint != one.fingerprint


def test_processors_are_divided_by_workers(tmp_path):
    model = load_embedder(f"onnx:{write_folder(tmp_path)}", workers=1_000)
    assert model._session.get_session_options().intra_op_num_threads == 1


def test_threads_share_one_model(tmp_path):
    model = OnnxEmbedder(str(write_folder(tmp_path)))
    texts = [f"{one} {two}" for one in "abcd" for two in "abcd"]
    alone = model.embed(texts)
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(model.embed(texts))) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert all((one == alone).all() for one in found)
    assert len(found) == 4


def test_a_model_that_is_quantised_as_it_runs_gets_one_text_at_a_time(tmp_path):
    folder = write_folder(tmp_path)
    # The name of the operation is what tells; here it stands in the network's description.
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes() + b"\x32\x15DynamicQuantizeLinear")
    pieces = list(OnnxEmbedder(str(folder)).pieces(["a", "b", "c"], "passage"))
    assert [list(one.positions) for one in pieces] == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"modules": [{"path": "2_Dense", "type": "x.Dense"}]}, "modules Dense"),
        (pooling(pooling_mode_weightedmean_tokens=True), "pools by weightedmean"),
        (pooling(pooling_mode_mean_tokens=True, pooling_mode_cls_token=True), "mean and cls"),
        (pooling(include_prompt=False), "leaves prompts out"),
        ({"config_sentence_transformers": {"similarity_fn_name": "manhattan"}}, "manhattan"),
        ({"inputs": ("input_ids", "pixel_values")}, "pixel_values"),
    ],
)
def test_what_is_not_done_here_is_refused(tmp_path, files, told):
    with pytest.raises(ConfigError, match=told):
        OnnxEmbedder(str(write_folder(tmp_path, **files)))


def test_a_folder_without_its_files_says_which(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        OnnxEmbedder(str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"neither model\.onnx"):
        OnnxEmbedder(str(tmp_path))
    folder = write_folder(tmp_path, name="model_q.onnx")
    with pytest.raises(ConfigError, match=r"it has model_q\.onnx"):
        OnnxEmbedder(str(folder))
    write_folder(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        OnnxEmbedder(str(folder))


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "config.json"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    folder = write_folder(tmp_path)
    (folder / name).write_bytes(b"\x80 nonsense")
    with pytest.raises(ConfigError, match=name):
        OnnxEmbedder(str(folder))


def test_a_missing_package_is_named_with_its_extra(tmp_path):
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from contextframe_beam.frames.embedders import load_embedder\n"
        f"load_embedder('onnx:{write_folder(tmp_path)}')"
    )
    assert "pip install 'contextframe-beam[embed-onnx]'" in run_code(code).err
