"""The wiki of a repository, which is a Git repository of its own and in no API."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from contextframe_beam.connectors import secrets
from contextframe_beam.errors import ConnectorError

_SECONDS = 600
_PAGES = (".md", ".markdown", ".mdown", ".mkd", ".org", ".rst", ".textile", ".asciidoc", ".adoc")
# What Git says of a wiki without a page, and of one that may not be seen.
_ABSENT = ("not found", "does not exist", "couldn't find remote ref")


@dataclass
class Wiki:
    """A wiki.

    Attributes:
        commit: Its commit; empty where there is no page.
        pages: The text of each page by its path; None where the commit is as it was.
    """

    commit: str = ""
    pages: dict[str, str] | None = field(default_factory=dict)


def read_wiki(url: str, authorization: str | None, known: str | None) -> Wiki:
    """Reads the pages of a wiki.

    Args:
        url: The address of its Git repository.
        authorization: The header `Authorization` of the API, `Bearer ...`; None without an account.
        known: The commit that an earlier run read.

    Raises:
        ConnectorError: Git is missing, or cannot read it.
    """
    if shutil.which("git") is None:
        raise ConnectorError("wikis are read with git, which is not installed here")
    environment = _environment(authorization)
    try:
        told = _git(["ls-remote", "--", url, "HEAD"], environment)
        commit = told.split(b"\t")[0].decode()
        if not commit:
            return Wiki()
        if commit == known:
            return Wiki(commit, None)
        with tempfile.TemporaryDirectory(prefix="contextframe-wiki-") as folder:
            where = ["-C", str(Path(folder) / "wiki")]
            _git(["clone", "--quiet", "--bare", "--depth", "1", "--", url, where[1]], environment)
            commit = _git([*where, "rev-parse", "HEAD"], environment).decode().strip()
            return Wiki(commit, dict(_pages(where, environment)))
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode("utf-8", "replace").strip()
        if any(one in reason.lower() for one in _ABSENT):
            return Wiki()
        raise ConnectorError(secrets.redact(f"git cannot read {url}: {reason}")) from None
    except subprocess.TimeoutExpired:
        raise ConnectorError(f"git took more than {_SECONDS} s for {url}") from None


def _pages(where: list[str], environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    names = _git([*where, "ls-tree", "-r", "-z", "--name-only", "HEAD"], environment)
    for name in names.decode("utf-8", "replace").split("\0"):
        if name.lower().endswith(_PAGES):
            data = _git([*where, "cat-file", "blob", f"HEAD:{name}"], environment)
            yield name, data.decode("utf-8", "replace")


def _git(arguments: list[str], environment: Mapping[str, str]) -> bytes:
    return subprocess.run(
        ["git", *arguments],
        env=dict(environment),
        capture_output=True,
        check=True,
        stdin=subprocess.DEVNULL,
        timeout=_SECONDS,
    ).stdout


def _environment(authorization: str | None) -> dict[str, str]:
    """Returns an environment in which Git asks nobody, and no command line shows the token."""
    told = {
        **os.environ,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "http:https",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "LC_ALL": "C",
    }
    if authorization:
        token = authorization.partition(" ")[2]
        encoded = base64.b64encode(f"x-access-token:{token}".encode()).decode()
        secrets.register(encoded)
        told |= {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "http.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {encoded}",
        }
    return told
