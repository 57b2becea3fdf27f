"""The version of a class or function: what it says of itself, else what its code is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam.frames.fingerprint import code_version, code_versions, fingerprint


def made(text: str, name: str = "Own") -> Any:
    """Returns what source defines that Python cannot show, as at a prompt."""
    space: dict[str, Any] = {"__name__": "nowhere"}
    exec(compile(text, "<prompt>", "exec"), space)
    return space[name]


class Plain:
    def work(self) -> int:
        return 1


class Versioned(Plain):
    version = 3


def test_a_class_counts_by_the_version_that_it_says():
    assert code_version(Versioned) == "3"
    assert (
        code_version(made("class Own:\n    version = '2.1'\n    def work(self): return 1")) == "2.1"
    )


def test_what_it_is_based_on_counts_too_but_by_itself():
    assert code_versions(Versioned) == ["3", code_version(Plain)]
    assert code_versions(fingerprint) == [code_version(fingerprint)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("class Own:\n    def work(self): return 1", "class Own:\n    def work(self): return 2"),
        ("class Own:\n    size = 1", "class Own:\n    size = 2"),
        ("class Own:\n    def work(self, n=1): pass", "class Own:\n    def work(self, n=2): pass"),
        (
            "class Own:\n    def work(self): return [n + 1 for n in self]",
            "class Own:\n    def work(self): return [n + 2 for n in self]",
        ),
        (
            "class Own:\n    @property\n    def size(self): return 1",
            "class Own:\n    @property\n    def size(self): return 2",
        ),
        (
            "class Own:\n    @staticmethod\n    def size(): return 1",
            "class Own:\n    @staticmethod\n    def size(): return 2",
        ),
        ("Own = lambda text: text + 'a'", "Own = lambda text: text + 'b'"),
    ],
)
def test_without_a_source_what_python_runs_counts(one, other):
    assert code_version(made(one)) == code_version(made("\n\n" + one))
    assert code_version(made(one)) != code_version(made(other))


def test_a_given_source_takes_the_place_of_that_which_python_finds():
    assert code_version(Plain, "a") == code_version(made("class Own: pass"), "a")
    assert code_version(Plain, "a") != code_version(Plain, "b") != code_version(Plain)


@pytest.mark.soak
def test_it_is_the_same_in_every_process(tmp_path: Path):
    (tmp_path / "own.py").write_text(
        "class Own:\n    def work(self): return self in {1, 2, 'a', 'b'}\n"
    )
    script = (
        "import own; from contextframe_beam.frames.fingerprint import code_version; "
        "space = {'__name__': 'x'}; exec(open('own.py').read(), space); "
        "print(code_version(own.Own), code_version(space['Own']))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1
