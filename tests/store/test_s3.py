"""Datasets on an object store behave as those on a disk: a real S3 server, on this machine."""

from __future__ import annotations

import json
import random
import signal
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import botocore.session
import lance
import pytest

from contextframe_beam import (
    CommitError,
    ContextFrameError,
    DatasetError,
    FrameDataset,
    UnknownCommitError,
)
from contextframe_beam.connectors import JSONFileConnector
from contextframe_beam.errors import TooManyTokens
from contextframe_beam.pipelines.compact import compact
from contextframe_beam.pipelines.embed import embed
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.store.address import Address
from contextframe_beam.store.state import ANCHOR_KEY
from contextframe_beam.store.upkeep import cleanup
from contextframe_beam.transforms.commit import commit_run
from tests.pipelines.test_crash import POINT_VARIABLE
from tests.store.test_rollback import list_tags_while_they_come_and_go
from tests.support.cli_helpers import assert_error, cli, environment, run_code
from tests.support.embedding_server import embedding_server
from tests.support.pipeline_helpers import EMBED_DIM, begin, document, documents, write
from tests.support.s3_faults import Fault, FaultyProxy
from tests.support.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server
from tests.support.vector_helpers import ingest_texts


@pytest.fixture
def kb(s3):
    return s3.new_place()


@pytest.fixture
def options(s3):
    return s3.options


def read(kb, options):
    """Returns the text of each document, once each key was found to be there once."""
    records = list(FrameDataset.open(kb, storage_options=options))
    texts = {str(one.unique_id).removeprefix("doc:"): one.text_content for one in records}
    assert len(texts) == len(records)
    stored = lance.dataset(kb, storage_options=options)
    assert stored.count_rows(filter=f"uuid = '{ANCHOR_KEY}'") == 1
    return texts


def is_commit(request):
    """Returns whether a request makes a version."""
    return request.method == "PUT" and "/_versions/" in request.path


class TestRuns:
    @pytest.mark.sample(1)
    @pytest.mark.parametrize("workers", [1, 2])
    def test_every_mode(self, kb, options, workers):
        def run(connector, mode):
            new = {"embed_dim": EMBED_DIM} if mode == "create" else {}
            how = {"mode": mode, "workers": workers, "max_deletes": "100%", **new}
            return ingest(connector, kb, storage_options=options, **how)

        run(documents(1, 2), "create")
        assert run(documents({"id": 1, "text": "new"}, 2, 3), "upsert").rows_replaced == 1
        assert read(kb, options) == {"1": "new", "2": "text of 2", "3": "text of 3"}
        run(documents(4), "append")
        assert sorted(read(kb, options)) == ["1", "2", "3", "4"]
        run(documents(9), "overwrite")
        assert sorted(read(kb, options)) == ["9"]
        assert run(documents(8), "mirror").rows_deleted == 1
        assert sorted(read(kb, options)) == ["8"]

    def test_a_run_id_is_committed_once(self, kb, options):
        for again in (False, True):
            receipt = ingest(
                documents(1), kb, run_id="nightly", storage_options=options, embed_dim=EMBED_DIM
            )
            assert receipt.already_committed == again

    def test_a_run_that_dies_before_its_commit_leaves_nothing_to_see(self, kb, options):
        ingest(documents(1), kb, embed_dim=EMBED_DIM, storage_options=options)
        write(begin(kb, "died", storage_options=options), 2)
        assert sorted(read(kb, options)) == ["1"]
        ingest(documents(1, 2), kb, run_id="died", storage_options=options)
        assert sorted(read(kb, options)) == ["1", "2"]

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_process_that_is_killed_at_its_commit(self, kb, options, when):
        ingest(documents(1), kb, embed_dim=EMBED_DIM, storage_options=options)
        code = (
            "import json, sys; from tests.pipelines.test_crash import documents, ingest; "
            "ingest(documents(1, 2), sys.argv[1], run_id='nightly', "
            "storage_options=json.loads(sys.argv[2]))"
        )
        point = environment(**{POINT_VARIABLE: f"{when} commit"})
        child = run_code(code, kb, json.dumps(options), env=point)
        assert child.code == -signal.SIGKILL, child.err
        assert sorted(read(kb, options)) == (["1"] if when == "before" else ["1", "2"])
        receipt = ingest(documents(1, 2), kb, run_id="nightly", storage_options=options)
        assert receipt.already_committed == (when == "after")
        assert sorted(read(kb, options)) == ["1", "2"]

    def test_a_file_that_is_gone_stops_the_commit(self, s3, kb, options):
        ingest(documents(1), kb, embed_dim=EMBED_DIM, storage_options=options)
        run = begin(kb, "lost", storage_options=options)
        written = write(run, 2)
        files = s3.filesystem()
        for path in written.fragments[0].paths:
            files.rm_file(f"{kb}/data/{path}")
        with pytest.raises(CommitError, match="nothing was committed"):
            commit_run(run, written)
        assert sorted(read(kb, options)) == ["1"]

    def test_runs_at_once_lose_nothing(self, kb, options):
        FrameDataset.create(kb, EMBED_DIM, options)

        def run(name):
            source = documents(f"own-{name}", "shared", source=name)
            return ingest(source, kb, run_id=name, storage_options=options)

        with ThreadPoolExecutor(3) as pool:
            receipts = list(pool.map(run, "abc"))
        assert len({one.version for one in receipts}) == 3
        assert sorted(read(kb, options)) == ["own-a", "own-b", "own-c", "shared"]

    def test_dead_letters_lie_beside_it(self, s3, kb, options):
        source = documents(1, {"id": 2, "error": "no"})
        receipt = ingest(source, kb, run_id="r", embed_dim=EMBED_DIM, storage_options=options)
        assert receipt.failed == 1
        files = s3.filesystem()
        (path,) = files.ls(f"{kb}.dead-letters", detail=False)
        assert json.loads(files.cat(path))["item"]["id"] == 2

    def test_pieces_of_dead_letters_that_a_killed_run_left_are_cleaned_up(self, s3, kb, options):
        FrameDataset.create(kb, EMBED_DIM, options)
        files = s3.filesystem()
        files.pipe(f"{kb}.dead-letters/r.jsonl.r.0.part", b"half a let")
        assert cli("cleanup", kb, "--json", *s3.flags).json["lost_files"] == 0
        flags = ["--lost-after", "0s", "--no-writers", "--json", *s3.flags]
        receipt = cli("cleanup", kb, *flags).json
        assert (receipt["lost_files"], receipt["bytes"]) == (1, 10)
        assert not files.exists(f"{kb}.dead-letters/r.jsonl.r.0.part")

    def test_a_json_source_there(self, s3, kb, options, monkeypatch):
        for name, value in s3.variables.items():
            monkeypatch.setenv(name, value)
        folder = kb.replace("kb.lance", "docs")
        s3.filesystem().pipe(f"{folder}/a.json", b'{"id": "a", "text": "apples"}')
        ingest(JSONFileConnector(folder), kb, embed_dim=EMBED_DIM)
        assert list(read(kb, None).values()) == ["apples"]


class TestCommits:
    def test_one_of_many_conditional_writes_of_an_object_wins(self, s3):
        client = botocore.session.get_session().create_client(
            "s3",
            endpoint_url=s3.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
        )
        barrier = threading.Barrier(8)

        def put(number, key):
            barrier.wait()
            try:
                client.put_object(Bucket=BUCKET, Key=key, Body=b"%d" % number, IfNoneMatch="*")
            except client.exceptions.ClientError as error:
                # Either answer says that another one was first.
                assert error.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412)
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            for key in (f"conditional/{uuid.uuid4().hex}" for _ in range(3)):
                won = list(pool.map(put, range(8), [key] * 8))
                assert won.count(True) == 1
                stored = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
                assert stored == b"%d" % won.index(True)

    def test_one_of_many_that_create_it_wins(self, kb, options):
        barrier = threading.Barrier(6)

        def create(_):
            barrier.wait()
            try:
                FrameDataset.create(kb, EMBED_DIM, options)
            except DatasetError as error:
                return str(error)
            return None

        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(create, range(6)))
        assert answers.count(None) == 1
        assert all("exists already" in answer for answer in answers if answer)
        assert lance.dataset(kb, storage_options=options).version == 1

    def test_each_of_many_edits_at_once_is_a_version_of_its_own(self, kb, options):
        FrameDataset.create(kb, EMBED_DIM, options)

        def add(name):
            for number in range(3):
                dataset = FrameDataset.open(kb, storage_options=options)
                dataset.add(document(f"{name}-{number}"))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(add, "abcd"))
        assert len(read(kb, options)) == 12
        assert FrameDataset.open(kb, storage_options=options).version == 13


class TestOperations:
    def test_search_edit_look_back_and_roll_back(self, kb, options):
        dataset = FrameDataset.create(kb, EMBED_DIM, options)
        dataset.add_many([document(1, "apples"), document(2, "pears")])
        assert dataset.get("doc:2") == document(2, "pears")
        before = dataset.version
        assert dataset.delete("doc:1")
        assert dataset.search("apples") == []
        earlier = FrameDataset.open(kb, before, options)
        assert [one.unique_id for one in earlier.search("apples")] == ["doc:1"]
        dataset.rollback(before)
        assert sorted(read(kb, options)) == ["1", "2"]
        assert dataset.history()[-1].restored == before

    def test_compact_and_clean_up(self, s3, kb, options):
        dataset = FrameDataset.create(kb, EMBED_DIM, options)
        for number in range(4):
            dataset.add(document(number))
        before = read(kb, options)
        receipt = compact(kb, workers=2, storage_options=options)
        assert receipt.fragments_after == 1
        write(begin(kb, "lost", storage_options=options), 9)
        freed = cleanup(Address(kb, options), timedelta(0), timedelta(0), no_writers=True)
        assert freed.lost_files == 1
        assert freed.versions > 0
        assert read(kb, options) == before
        assert len(s3.filesystem().ls(f"{kb}/data")) == 1

    def test_vectors_come_and_are_made_again(self, s3, kb, options):
        texts = {f"d{n}": f"Text number {n}." for n in range(5)}
        ingest_texts(texts, kb, embed="none", storage_options=options)
        ingest_texts(texts, kb, embed="hash:8", storage_options=options)  # of another length
        assert FrameDataset.open(kb, storage_options=options).embed_dim == 8
        with embedding_server() as service:
            about = {"embed_url": f"{service.url}/v1", "storage_options": options}
            with pytest.raises(TooManyTokens):
                embed(kb, "openai:m", max_tokens=9, **about)
            assert s3.filesystem().du(f"{kb}.vectors")
            receipt = embed(kb, "openai:m", **about)
        assert receipt.chunks == receipt.texts_embedded + receipt.texts_reused == 5
        assert receipt.texts_reused
        assert not s3.filesystem().du(f"{kb}.vectors")
        assert len(read(kb, options)) == 10
        assert compact(kb, storage_options=options).fragments_after == 1
        assert FrameDataset.open(kb, storage_options=options).embedder == receipt.embedder

    def test_tags_of_others_come_and_go(self, kb, options):
        FrameDataset.create(kb, EMBED_DIM, options)
        list_tags_while_they_come_and_go(kb, options)

    def test_the_command_line(self, s3, kb, tmp_path):
        (tmp_path / "a.json").write_text('{"id": "a", "text": "apples"}')
        flags = s3.flags
        made = cli("ingest", "json", "--directory", tmp_path, "--to", kb, "--embed-dim", 4, *flags)
        assert made.code == 0, made
        assert cli("search", kb, "apples", "--json", *flags).json[0]["text_content"] == "apples"
        assert cli("inspect", kb, "--json", *flags).json["documents"] == 1
        assert cli("compact", kb, *flags).code == 0
        assert cli("cleanup", kb, "--dry-run", *flags).code == 0
        assert cli("rollback", kb, "--to", 1, *flags).code == 0
        assert SECRET_KEY not in made.out + made.err

    def test_the_usual_environment_variables(self, s3, kb, monkeypatch):
        for name, value in s3.variables.items():
            monkeypatch.setenv(name, value)
        ingest(documents(1, {"id": 2, "error": "no"}), kb, embed_dim=EMBED_DIM)
        assert cli("inspect", kb, "--json").json["documents"] == 1


class TestErrors:
    def test_wrong_credentials(self, s3, kb, options):
        FrameDataset.create(kb, EMBED_DIM, options)
        flags = ["--storage-option", "secret_access_key=wrong-secret-of-mine"]
        result = cli("inspect", kb, *s3.flags, *flags)
        assert_error(result, 1, f"cannot open {kb}", "403 Forbidden", "check the credentials")
        assert "wrong-secret-of-mine" not in result.err

    def test_wrong_credentials_of_a_run(self, s3, kb, tmp_path):
        (tmp_path / "a.json").write_text('{"id": "a", "text": "apples"}')
        flags = [*s3.flags, "--storage-option", "secret_access_key=wrong-secret-of-mine"]
        result = cli("ingest", "json", "--directory", tmp_path, "--to", kb, *flags)
        assert_error(result, 1, f"cannot open {kb}", "403 Forbidden", "check the credentials")
        assert "wrong-secret-of-mine" not in result.err

    def test_a_bucket_that_is_missing(self, s3, tmp_path):
        (tmp_path / "a.json").write_text('{"id": "a", "text": "apples"}')
        to = "s3://no-such-bucket/kb.lance"
        result = cli("ingest", "json", "--directory", tmp_path, "--to", to, *s3.flags)
        assert_error(result, 1, f"cannot open {to}", "404", "check that the bucket exists")
        assert SECRET_KEY not in result.err

    def test_nobody_at_the_endpoint(self, s3, kb):
        flags = [*s3.flags, "--storage-option", "endpoint=http://127.0.0.1:9"]
        assert_error(cli("inspect", kb, *flags), 1, "cannot be reached")


class TestTrouble:
    """Each request may fail once; a run succeeds, or leaves everything as it was."""

    @pytest.fixture
    def proxy(self, s3):
        with FaultyProxy(s3.endpoint) as proxy:
            yield proxy

    @pytest.mark.sample(2)
    @pytest.mark.parametrize(
        "fault", [Fault(500), Fault(503), Fault(delay=0.2), Fault(503, after=True)], ids=str
    )
    def test_some_requests_fail_and_the_run_succeeds(self, proxy, kb, options, fault):
        ingest(documents(1), kb, embed_dim=EMBED_DIM, storage_options=options)
        proxy.fault = lambda request: fault if request.number % 5 == 4 else None
        through = {**options, "endpoint": proxy.endpoint}
        receipt = ingest(documents(1, 2), kb, run_id="nightly", storage_options=through)
        assert proxy.faults > 2
        assert receipt.rows_written == 1
        assert read(kb, options) == {"1": "text of 1", "2": "text of 2"}
        known = FrameDataset.open(kb, storage_options=options).states()[0].runs
        assert [run.run_id for run in known].count("nightly") == 1

    @pytest.mark.parametrize(
        "edit",
        [
            lambda dataset: dataset.add(document(2)),
            lambda dataset: dataset.delete("doc:1"),
            lambda dataset: dataset.rollback(1),
        ],
        ids=["add", "delete", "roll back"],
    )
    def test_an_edit_whose_answer_is_lost_is_made_once(self, proxy, kb, options, edit):
        FrameDataset.create(kb, EMBED_DIM, options).add(document(1))
        through = {**options, "endpoint": proxy.endpoint}
        dataset = FrameDataset.open(kb, storage_options=through)
        proxy.fault = lambda request: (
            Fault(503, after=True) if is_commit(request) and not proxy.faults else None
        )
        edit(dataset)
        assert proxy.faults == 1
        assert dataset.version == 3
        newest = FrameDataset.open(kb, storage_options=options)
        assert newest.version == 3
        assert len(list(newest)) == len(list(dataset))

    @pytest.mark.parametrize(
        "made", [True, pytest.param(False, marks=pytest.mark.soak)], ids=["made", "not made"]
    )
    def test_a_commit_that_nobody_answers_for_is_unknown(self, proxy, kb, tmp_path, made):
        (tmp_path / "a.json").write_text('{"id": "a", "text": "apples"}')
        server = S3Server(proxy.upstream)
        options = server.options
        FrameDataset.create(kb, EMBED_DIM, options)
        command = ["ingest", "json", "--directory", tmp_path, "--to", kb, "--run-id", "nightly"]

        def fault(request):
            # From the commit on the store answers nothing.
            if proxy.faults or is_commit(request):
                return Fault(503, after=made and not proxy.faults)
            return None

        proxy.fault = fault
        through = [*server.flags, "--storage-option", f"endpoint={proxy.endpoint}"]
        result = cli(*command, *through, "--storage-option", "client_max_retries=1")
        assert_error(result, 1, "is not known", "503", "run nightly again under the same id")
        assert "not committed" not in result.err
        assert len(read(kb, options)) == made
        again = cli(*command, "--json", *server.flags)
        assert again.json["already_committed"] == made
        assert list(read(kb, options).values()) == ["apples"]

    @pytest.mark.parametrize(
        "seed", [1, *(pytest.param(n, marks=pytest.mark.soak) for n in range(2, 40))]
    )
    def test_any_faults_leave_it_as_before_or_as_after(self, proxy, kb, options, seed):
        ingest(documents(1, 2, 3), kb, embed_dim=EMBED_DIM, storage_options=options)
        before = read(kb, options)
        source = documents({"id": 1, "text": "new"}, 2, 4)
        after = {"1": "new", "2": "text of 2", "4": "text of 4"}
        chance = random.Random(seed)
        often = chance.choice([0.05, 0.2, 0.5])

        def fault(request):
            if chance.random() >= often:
                return None
            status = chance.choice([0, 500, 503])
            return Fault(status, chance.choice([0, 0, 0.2]), after=chance.random() < 0.5)

        proxy.fault = fault
        through = {**options, "endpoint": proxy.endpoint, "client_max_retries": "1"}
        try:
            ingest(source, kb, mode="mirror", run_id="nightly", storage_options=through)
            allowed = [after]
        except UnknownCommitError:
            allowed = [before, after]
        except ContextFrameError:
            allowed = [before]
        assert proxy.faults
        assert read(kb, options) in allowed
        ingest(source, kb, mode="mirror", run_id="nightly", storage_options=options)
        assert read(kb, options) == after
        known = FrameDataset.open(kb, storage_options=options).states()[0].runs
        assert [run.run_id for run in known].count("nightly") == 1

    def test_a_commit_that_cannot_read_says_so_and_leaves_it_as_it_was(self, proxy, kb, options):
        for version in (1, 2):
            ingest(documents(*range(version)), kb, embed_dim=EMBED_DIM, storage_options=options)
        through = {**options, "endpoint": proxy.endpoint, "client_max_retries": "0"}
        through["download_retry_count"] = "0"
        started = begin(kb, "nightly", storage_options=through)
        written = write(started, document(1, "newer"))
        proxy.fault = lambda request: (
            Fault(503) if request.method == "GET" and "/data/" in request.path else None
        )
        with pytest.raises(DatasetError, match=f"cannot read {kb}: the object store answered 503"):
            commit_run(started, written)
        with pytest.raises(DatasetError, match=f"cannot read {kb}: the object store answered 503"):
            FrameDataset.open(kb, storage_options=through).states()
        assert proxy.faults
        assert FrameDataset.open(kb, storage_options=options).version == 2
        proxy.fault = lambda request: None
        assert commit_run(started, written).rows_replaced == 1

    @pytest.mark.sample(1)
    @pytest.mark.parametrize("folder", ["data", "_versions"])
    def test_writes_that_always_fail_leave_it_as_it_was(self, proxy, kb, options, folder):
        ingest(documents(1), kb, embed_dim=EMBED_DIM, storage_options=options)
        version = FrameDataset.open(kb, storage_options=options).version
        proxy.fault = lambda request: (
            Fault(503) if request.method == "PUT" and f"/{folder}/" in request.path else None
        )
        through = {**options, "endpoint": proxy.endpoint, "client_max_retries": "1"}
        with pytest.raises(ContextFrameError, match="503"):
            ingest(documents(1, 2), kb, run_id="nightly", storage_options=through)
        assert proxy.faults
        assert FrameDataset.open(kb, storage_options=options).version == version
        assert read(kb, options) == {"1": "text of 1"}
        assert ingest(documents(1, 2), kb, run_id="nightly", storage_options=options).rows_written


def test_addresses_of_other_stores_are_tried_and_told(tmp_path):
    result = cli("inspect", f"gs://{BUCKET}/kb.lance", "--storage-option", "google_base_url=x")
    assert result.code == 1
    assert result.err.startswith(f"Error: cannot open gs://{BUCKET}/kb.lance")
