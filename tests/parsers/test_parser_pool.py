"""Processes that parse: what hangs or crashes in one ends no run, and none outlives its run."""

import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contextframe_beam.errors import ConfigError, ContextFrameError
from contextframe_beam.frames.document import Document, Heading
from contextframe_beam.parsers import (
    Limits,
    NoTextError,
    ParseError,
    ParserPool,
    Parsers,
    ParserSpec,
    UnknownTypeError,
    child,
)
from tests.support.cli_helpers import run_code, start
from tests.support.own_parsers import Told
from tests.support.pdf_files import pdf

TOLD = Parsers([Told])


@pytest.fixture
def pool() -> Iterator[ParserPool]:
    with ParserPool(TOLD, Limits(timeout=30)) as one:
        yield one


def pid(pool: ParserPool) -> int:
    return int(pool.parse("a.told", b"pid").text)


def ends(process: int) -> bool:
    """Waits until a process is gone, or a zombie that nobody waits for."""
    for _ in range(1000):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_a_document_comes_back_as_it_was_made(pool):
    data = pdf(["One", "Two"], outline=[("Two", 1, 1)], info={"Title": "T"})
    assert pool.parse("dir/a.pdf", data) == Document(
        "One\n\nTwo", title="T", headings=(Heading(5, 1, "Two"),), pages=(0, 5)
    )


def test_one_process_parses_file_after_file(pool):
    assert pid(pool) == pid(pool) != os.getpid()


def test_a_type_that_no_parser_reads_is_told_apart(pool):
    with pytest.raises(UnknownTypeError, match=r"a\.png"):
        pool.parse("a.png", b"\x89PNG")


def test_a_file_without_text_is_told_apart(pool):
    with pytest.raises(NoTextError, match="scanned"):
        pool.parse("a.pdf", pdf([""]))


@pytest.mark.parametrize("what", ["hang", "hang-deaf", "start-and-hang"])
def test_what_takes_too_long_is_refused_and_the_next_file_is_parsed(what):
    with ParserPool(TOLD, Limits(timeout=0.3)) as pool:
        before = pid(pool)
        with pytest.raises(ParseError, match=r"a\.told: parsing it took longer than 0\.3 seconds"):
            pool.parse("a.told", what.encode())
        assert ends(before)
        assert pid(pool) != before


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("segfault", "crashed .SIGSEGV"),
        ("exit 3", "ended its process .exit code 3"),
        ("exit 0", "ended its process .exit code 0"),
        ("raise secret", r"Told failed with ValueError .own_parsers.py, line \d+"),
        ("refuse", "a.told: it is refused"),
        ("number", "Told returned int"),
    ],
)
def test_what_crashes_is_refused_and_the_next_file_is_parsed(pool, what, message):
    pid(pool)
    with pytest.raises(ParseError, match=message) as raised:
        pool.parse("a.told", what.encode())
    assert "secret" not in str(raised.value)
    assert pid(pool)


def test_memory_has_a_bound():
    with ParserPool(TOLD, Limits(max_memory_bytes=256 << 20)) as pool:
        with pytest.raises(ParseError, match="max_memory_bytes, 268 MB"):
            pool.parse("a.told", b"fill")
        assert pid(pool)


def test_a_file_that_is_too_large_is_never_sent():
    with (
        ParserPool(TOLD, Limits(max_file_bytes=10)) as pool,
        pytest.raises(ParseError, match=r"a\.told: it has 11 bytes, and max_file_bytes is 10"),
    ):
        pool.parse("a.told", b"hang " + b"x" * 6)


def test_what_a_parser_prints_harms_no_answer(pool, capfd):
    assert pool.parse("a.told", b"print hello").text
    assert capfd.readouterr() == ("", "")


def test_a_file_is_not_blamed_for_what_another_damaged(pool):
    victim = pid(pool)
    os.kill(victim, signal.SIGKILL)
    assert ends(victim)
    assert pid(pool) != victim


def test_threads_have_processes_of_their_own():
    pids: list[int] = []
    with ParserPool(TOLD, processes=2) as pool:
        together = threading.Barrier(4)

        def work() -> None:
            together.wait()
            pids.extend(pid(pool) for _ in range(5))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert len(pids) == 20
    assert len(set(pids)) <= 2
    assert all(map(ends, set(pids)))


def test_a_pool_that_is_sent_to_another_process_starts_its_own(pool):
    first = pid(pool)
    with pickle.loads(pickle.dumps(pool)) as other:
        assert pid(other) != first


# In a process of its own, because a fork of this one may hold locks of its threads for ever.
DAEMONIC_FORK = """
import multiprocessing
from contextframe_beam.parsers import ParserPool, Parsers

pool = ParserPool(Parsers(["tests.support.own_parsers:Told"]))
pid = lambda: pool.parse("a.told", b"pid").text
first = pid()
context = multiprocessing.get_context("fork")
answers = context.Queue()
worker = context.Process(target=lambda: answers.put(pid()), daemon=True)
worker.start()
print(answers.get(timeout=60) != first)
worker.join()
print(pid() == first)
pool.close()
"""


def test_a_daemonic_fork_starts_its_own():
    done = run_code(DAEMONIC_FORK)
    assert done.out.split() == ["True", "True"], done.err


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_no_process_outlives_a_parent_that_is_killed(state):
    parent = start(state, module="tests.support.own_parsers")
    child = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    assert ends(child)
    os.killpg(parent.pid, signal.SIGKILL)  # the fork
    parent.communicate()


def test_the_process_that_parses_imports_no_beam(pool):
    modules = pool.parse("a.told", b"modules").text.split()
    assert "contextframe_beam.parsers.child" in modules
    names = {"apache_beam", "lance", "pyarrow", "numpy", "pypdfium2", "docx", "requests"}
    assert names.isdisjoint(modules)


def test_a_folder_with_modules_of_the_same_name_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    (tmp_path / "orjson.py").write_text("raise SystemExit(7)")
    with ParserPool(Parsers()) as pool:
        assert pool.parse("a.txt", b"text").text == "text"


def test_a_parser_that_cannot_be_made_ends_the_run():
    parsers = Parsers([ParserSpec("tests.support.own_parsers:Lines", {"wrong": 1})])
    with ParserPool(parsers) as pool, pytest.raises(ConfigError, match="cannot be made"):
        pool.parse("a.lines", b"x")


def test_no_file_is_blamed_where_no_process_can_be_started(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    with ParserPool(TOLD) as pool, pytest.raises(ContextFrameError, match="before it was ready"):
        pool.parse("a.told", b"pid")


def test_a_process_that_is_idle_ends(monkeypatch):
    monkeypatch.setattr(child, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(child, "_IDLE_SECONDS", 0)
    reading, writing = os.pipe()
    assert not child._waits(reading, os.getppid())
    os.write(writing, b"a request")
    assert child._waits(reading, os.getppid())
    os.close(reading)
    os.close(writing)


def test_the_next_file_goes_to_a_new_process_where_one_has_ended(pool):
    before = pid(pool)
    os.kill(before, signal.SIGTERM)
    assert pid(pool) != before
