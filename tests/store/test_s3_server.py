"""The servers of tests do not outlive them."""

from __future__ import annotations

import sys

import pytest

from tests.support.cli_helpers import is_running, start_code, wait_until

_PARENT = """
import shutil, subprocess, time
from tests.support.s3_server import ending_with_parent
sleeping = ending_with_parent([shutil.which("sleep"), "600"])
child = subprocess.Popen(sleeping, start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of such a death")
def test_a_server_ends_with_a_test_run_that_is_killed():
    parent = start_code(_PARENT)
    child = int(parent.stdout.readline())
    assert is_running(child)
    parent.kill()
    parent.communicate()
    wait_until(lambda: not is_running(child))
