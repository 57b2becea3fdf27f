"""A program that was forked finds what it would find if it had been executed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.cli_helpers import cli_process, environment, run_code, start_code, wait_until
from tests.support.forked import Forked, can_fork

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux")

# The folder first, then PYTHONPATH, then those of the interpreter.
TELLS_ALL = """
import json, os, random, signal, sys, tempfile, threading, time
print(json.dumps({
    "arguments": sys.argv,
    "path": list(dict.fromkeys(path or os.getcwd() for path in sys.path)),
    "folder": os.getcwd(),
    "environment": dict(os.environ),
    "temporary": tempfile.gettempdir(),
    "zone": time.tzname,
    "main": sys.modules["__main__"].__name__,
    "leads a session": os.getsid(0) == os.getpid(),
    "interrupts": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    "children": signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL,
    "threads": threading.active_count(),
    "streams": [file.isatty() for file in (sys.stdin, sys.stdout, sys.stderr)],
    "input": sys.stdin.read(),
}))
"""


def test_what_a_program_finds_is_the_same(tmp_path: Path) -> None:
    added = environment(TMPDIR=str(tmp_path), TZ="Asia/Tokyo", SOMETHING="new")
    added["PYTHONPATH"] += f":{tmp_path}/more"
    forked, executed = (
        run_code(TELLS_ALL, "a", "b c", cwd=tmp_path, env=added, executed=executed).json
        for executed in (False, True)
    )
    assert forked == executed


@pytest.mark.parametrize(
    "code",
    [
        "print('one'); raise SystemExit",
        "raise SystemExit(3)",
        "raise SystemExit('said at the end')",
        "import os; os._exit(5)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import atexit; atexit.register(print, 'at exit')",
        "import threading, time; threading.Timer(0.05, print, ['in a thread']).start()",
        "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))).__module__)",
    ],
)
def test_how_a_program_ends_is_the_same(code: str) -> None:
    assert run_code(code) == run_code(code, executed=True)


def test_an_error_that_nobody_catches_is_told() -> None:
    result = run_code("print('before')\n1 / 0")
    assert (result.code, result.out) == (1, "before\n")
    assert result.err.endswith("ZeroDivisionError: division by zero\n")


def test_a_module_is_run_as_the_main_one() -> None:
    result = cli_process("--version")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("contextframe-beam ")


def test_it_is_interrupted_and_killed_as_others_are(tmp_path: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        flag = tmp_path / number.name
        process = start_code(
            "import pathlib, sys, threading\n"
            "pathlib.Path(sys.argv[1]).touch()\n"
            "threading.Event().wait()",
            flag,
        )
        wait_until(flag.exists, process)
        os.killpg(process.pid, number)
        process.communicate(timeout=60)
        # Python ends itself with the signal after a KeyboardInterrupt that nobody catches.
        assert process.returncode == -number


def test_each_draws_numbers_of_its_own() -> None:
    code = "import random, uuid, numpy; print(random.random(), uuid.uuid4(), numpy.random.random())"
    one, other = run_code(code).out.split(), run_code(code).out.split()
    assert not set(one) & set(other)


def test_what_is_read_when_python_starts_is_not_changed_in_a_fork() -> None:
    assert can_fork(environment()) and isinstance(start_code(""), Forked)
    for name in ("PYTHONWARNINGS", "PYTHONHASHSEED", "LC_ALL", "LANCE_LOG"):
        assert not can_fork(environment(**{name: "1"}))
    result = run_code(
        "import sys; print(sys.flags.hash_randomization)", env=environment(PYTHONHASHSEED="0")
    )
    assert result.out == "0\n"
