"""Measures connectors of services beside their peers: what they find, and at what cost.

Each reads the same world, reads it again unchanged, and again after an edit, a comment and a
delete. The world checks each request, so seconds tell of the world as well.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from measure import Measurement, run

HERE = Path(__file__).parent
# The world needs what the tests need.
TESTS = HERE.parent / ".venv" / "bin" / "python"
AIRBYTE = HERE.parent / ".venv-airbyte" / "bin" / "python"
AIRBYTE_SLACK = HERE.parent / ".venv-airbyte-slack" / "bin" / "python"
LANGCHAIN = HERE.parent / ".venv-langchain" / "bin" / "python"
LLAMAINDEX = HERE.parent / ".venv-llamaindex" / "bin" / "python"
STEPS = ("first", "unchanged", "edit", "comment", "delete")

_COUNT_KINDS = """
import json, sys
from collections import Counter
from contextframe_beam import FrameDataset
names = {"review-comment": "line comments"}
kinds = Counter(one.metadata["kind"] for one in FrameDataset.open(sys.argv[1]))
print(json.dumps({names.get(kind, f"{kind}s"): count for kind, count in kinds.items()}))
"""
# A message of a thread counts as of that kind.
_COUNT_MESSAGES = """
import json, sys
from collections import Counter
from contextframe_beam import FrameDataset
counts = Counter()
for one in FrameDataset.open(sys.argv[1]):
    told, count = one.metadata, one.metadata.get("message_count", 1)
    is_post = told["collection"].endswith("#help")
    kind = "posts" if is_post else "threads" if "thread" in told else "messages"
    # A thread begins with the message that it was started from.
    counts[kind] += count - (kind == "threads")
print(json.dumps(counts))
"""

_COUNT_TEXTS = """
import json, re, sys
from contextframe_beam import FrameDataset
text = "\\n".join(one.text_content or "" for one in FrameDataset.open(sys.argv[1]))
found = {"messages": r"Message \\d+\\.", "replies": r"Reply \\d+ to \\d+\\."}
print(json.dumps({name: len(set(re.findall(form, text))) for name, form in found.items()}))
"""

_COUNT_PAGES = """
import json, sys
from contextframe_beam import FrameDataset
found = [(one.metadata["kind"], one.text_content) for one in FrameDataset.open(sys.argv[1])]
pages = [text for kind, text in found if kind == "page"]
nested = sum("Nested" in text for text in pages)
comments = len(found) - len(pages)
print(json.dumps({"pages": len(pages), "nested blocks": nested, "comments": comments}))
"""
_COUNT_NOTES = """
import json, sys
from contextframe_beam import FrameDataset
found = [one.metadata for one in FrameDataset.open(sys.argv[1])]
notes = [one for one in found if one["kind"] == "note"]
linked = sum(bool(one.get("relationships")) for one in notes)
tagged = sum(bool(one.get("tags")) for one in notes)
files = len(found) - len(notes)
print(json.dumps({"notes": len(notes), "links": linked, "tags": tagged, "files": files}))
"""

Job = Callable[[str, Path], "tuple[Measurement, dict[str, int]]"]


def measure(issues: int, messages: int, documents: int) -> None:
    """Reads each service with each connector, and prints what it found and asked.

    Args:
        issues: How many issues and pull requests the repository of GitHub has, and how many issues
            the team of Linear.
        messages: How many messages each of two channels of Discord has, and all of Slack.
        documents: How many documents a folder of Google Drive has, how many pages Notion, and how
            many notes a vault of Obsidian.
    """
    github = ["--repositories", "acme/app", "--resources", "files,issues,pulls,comments"]
    jobs: dict[str, Job] = {
        # Peers do not read reviews, which are a request for each pull request.
        "ours": partial(_ours, "github", github, "ghp_all", _COUNT_KINDS),
        "with reviews": partial(
            _ours, "github", [*github[:-1], f"{github[-1]},reviews"], "ghp_all", _COUNT_KINDS
        ),
    }
    for name, python, script in (
        ("Airbyte", AIRBYTE, "connectors_airbyte.py"),
        ("LlamaIndex", LLAMAINDEX, "connectors_llamaindex.py"),
    ):
        if is_there(name, python):
            jobs[name] = _peer(python, script, "ghp_all", has_state=name == "Airbyte")
    _measure("github", issues, jobs)
    bot = "bot.token.of-the-world"
    jobs = {"ours": partial(_ours, "discord", [], bot, _COUNT_MESSAGES)}
    if is_there("LlamaIndex", LLAMAINDEX):
        jobs["LlamaIndex"] = _peer(LLAMAINDEX, "connectors_discord.py", bot, has_state=False)
    _measure("discord", messages, jobs)
    app = "xoxb-reader-0123456789"
    # Without the limits of Slack, which the world does not have here.
    unlimited = ["--requests-per-minute", "100000"]
    jobs = {"ours": partial(_ours, "slack", unlimited, app, _COUNT_TEXTS)}
    if is_there("Airbyte", AIRBYTE_SLACK):
        jobs["Airbyte"] = _peer(AIRBYTE_SLACK, "connectors_slack_airbyte.py", app, has_state=True)
    if is_there("LlamaIndex", LLAMAINDEX):
        jobs["LlamaIndex"] = _peer(LLAMAINDEX, "connectors_slack.py", app, has_state=False)
    _measure("slack", messages, jobs)
    key = "lin_api_0123456789abcdef"
    jobs = {"ours": partial(_ours, "linear", [], key, _COUNT_KINDS)}
    if is_there("LlamaIndex", LLAMAINDEX):
        jobs["LlamaIndex"] = _peer(LLAMAINDEX, "connectors_linear.py", key, has_state=False)
    _measure("linear", issues, jobs)
    bot = "ntn_reader_0123456789"
    quick = ["--requests-per-second", "5000"]
    jobs = {"ours": partial(_ours, "notion", quick, bot, _COUNT_PAGES)}
    if is_there("LlamaIndex", LLAMAINDEX):
        jobs["LlamaIndex"] = _peer(LLAMAINDEX, "connectors_notion.py", bot, has_state=False)
    _measure("notion", documents, jobs)
    jobs = {"ours": _vault}
    for name, python in (("LangChain", LANGCHAIN), ("LlamaIndex", LLAMAINDEX)):
        if is_there(name, python):
            jobs[name] = _peer(python, "connectors_obsidian.py", name.lower(), has_state=False)
    _measure("obsidian", documents, jobs)
    jobs = {"ours": _drive}
    for name, python in (("LangChain", LANGCHAIN), ("LlamaIndex", LLAMAINDEX)):
        if is_there(name, python):
            jobs[name] = _peer(python, "connectors_drive.py", name.lower(), has_state=False)
    _measure("google-drive", documents, jobs)


def is_there(name: str, python: Path) -> bool:
    """Returns whether a peer is installed, and says so if it is not."""
    if not python.exists():
        print(f"{name} was not measured: {python.parts[-3]} is missing (make bench makes it)")
    return python.exists()


def _measure(service: str, size: int, jobs: Mapping[str, Job]) -> None:
    print(f"{service}:")
    for name, job in jobs.items():
        with tempfile.TemporaryDirectory() as scratch, _World(service, size) as world:
            _report(name, job, world, Path(scratch))


def _report(
    name: str,
    job: Job,
    world: _World,
    scratch: Path,
) -> None:
    for step in STEPS:
        world.tell(step)
        measured, found = job(world.url, scratch)
        asked = world.tell("")["requests"]
        print(f"{name:12} {step:10} {asked:5} requests {measured.seconds:7.2f} s", flush=True)
        if step == "first":
            shown = [f"{found.get(kind, 0)} of {n} {kind}" for kind, n in world.there.items()]
            print(f"{'':12} found {', '.join(shown)}", flush=True)


def _ours(
    service: str,
    options: list[str],
    token: str,
    counting: str,
    url: str,
    scratch: Path,
    flag: str = "token",
) -> tuple[Measurement, dict[str, int]]:
    to = str(scratch / "kb.lance")
    command = [sys.executable, "-m", "contextframe_beam", "ingest", service, "--base-url", url]
    command += [*options, f"--{flag}", "env:BENCH_TOKEN", "--to", to]
    measured = run(command, env={"BENCH_TOKEN": token})
    # In another process, because our imports would count as memory of those that we start.
    found = subprocess.check_output([sys.executable, "-c", counting, to], text=True)
    return measured, json.loads(found)


def _vault(folder: str, scratch: Path) -> tuple[Measurement, dict[str, int]]:
    to = str(scratch / "kb.lance")
    command = [sys.executable, "-m", "contextframe_beam", "ingest", "obsidian", "--vault", folder]
    measured = run([*command, "--to", to])
    found = subprocess.check_output([sys.executable, "-c", _COUNT_NOTES, to], text=True)
    return measured, json.loads(found)


def _drive(url: str, scratch: Path) -> tuple[Measurement, dict[str, int]]:
    address, _, folder = url.partition("#")
    options = ["--folders", folder, "--client-id", "id", "--client-secret", "env:BENCH_TOKEN"]
    return _ours(
        "google-drive",
        options,
        "1//refresh-of-ada",
        _COUNT_KINDS,
        address,
        scratch,
        "refresh-token",
    )


def _peer(python: Path, script: str, token: str, has_state: bool) -> Job:
    def job(url: str, scratch: Path) -> tuple[Measurement, dict[str, int]]:
        printed = scratch / "printed"
        command = [str(python), str(HERE / script), url, token]
        command += [str(scratch / "state")] if has_state else []
        shell = ["sh", "-c", 'out=$1; shift; exec "$@" > "$out"', "sh", str(printed), *command]
        measured = run(shell)
        return measured, json.loads(printed.read_text().splitlines()[-1])

    return job


class _World:
    """The world's process."""

    def __init__(self, service: str, size: int) -> None:
        command = [str(TESTS), str(HERE / "connectors_world.py"), service, str(size)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        told = self._read()
        self.url, self.there = str(told["url"]), dict(told["there"])

    def tell(self, line: str) -> dict[str, Any]:
        """Tells it what to change, and returns what was asked since the last time."""
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)
        return self._read()

    def __enter__(self) -> _World:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        return told
