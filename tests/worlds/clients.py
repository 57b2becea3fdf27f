"""Vendors' own clients, which read a world as a second opinion; `make clients` installs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

FOLDER = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "contextframe-beam/clients"
)


def node(package: str, script: str, *arguments: str) -> dict[str, Any]:
    """Runs a script with a client that npm installed, and returns the JSON that it prints.

    Args:
        package: The package; the test is skipped where it is not installed.
        script: An ES module. It has `client`, what the package exports, and `given`, the arguments;
            it ends with a call of `tell(value)`.
        *arguments: Texts for the script.
    """
    if not shutil.which("node") or not (FOLDER / "node_modules" / package).is_dir():
        pytest.skip(f"the second opinion of {package} is not installed; `make clients` installs it")
    whole = (
        'import { createRequire } from "module";\n'
        f"const client = createRequire({json.dumps(f'{FOLDER}/')})({json.dumps(package)});\n"
        "const given = process.argv.slice(1);\n"
        "const tell = (value) => console.log(JSON.stringify(value));\n"
        f"{script}"
    )
    done = subprocess.run(
        ["node", "--input-type=module", "--eval", whole, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def python(package: str, script: str, *arguments: str) -> Any:
    """Runs a script with a client of Python, in an environment of its own.

    Args:
        package: The module of the client; the test is skipped where it is not installed.
        script: Python. It has `given`, the arguments, and ends with a call of `tell(value)`.
        *arguments: Texts for the script.

    Returns:
        The JSON that it told.
    """
    interpreter = FOLDER / "python" / "bin" / "python"
    found = (
        interpreter.exists()
        and not subprocess.run(
            [interpreter, "-c", f"import importlib.util as u; assert u.find_spec({package!r})"],
            capture_output=True,
        ).returncode
    )
    if not found:
        pytest.skip(f"the second opinion of {package} is not installed; `make clients` installs it")
    whole = (
        "import json, sys\n"
        "given = sys.argv[1:]\n"
        "tell = lambda value: print(json.dumps(value))\n"
        f"{script}"
    )
    done = subprocess.run(
        [interpreter, "-c", whole, *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])
