"""Reads a repository with Airbyte's source, incrementally, and prints how many records it found.

Its streams of reviews and releases ask GraphQL, of which the world has discussions only.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

STREAMS = {
    "issues": "issues",
    "pull_requests": "pulls",
    "comments": "comments",
    "review_comments": "line comments",
}

url, token, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
SOURCE = str(Path(sys.executable).parent / "source-github")


def messages(*arguments: str) -> list[dict]:
    done = subprocess.run([SOURCE, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:])
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


folder.mkdir(parents=True, exist_ok=True)
config, catalog, state = (folder / f"{name}.json" for name in ("config", "catalog", "state"))
account = {"option_title": "PAT Credentials", "personal_access_token": token}
settings = {"credentials": account, "repositories": ["acme/app"], "api_url": f"{url}/"}
config.write_text(json.dumps({**settings, "start_date": "2020-01-01T00:00:00Z"}))
if not catalog.exists():
    (found,) = (one for one in messages("discover", "--config", str(config)) if "catalog" in one)
    streams = [
        {"stream": one, "sync_mode": "incremental", "destination_sync_mode": "append"}
        for one in found["catalog"]["streams"]
        if one["name"] in STREAMS
    ]
    catalog.write_text(json.dumps({"streams": streams}))
command = ["read", "--config", str(config), "--catalog", str(catalog)]
told = messages(*command, *(["--state", str(state)] if state.exists() else []))
counts: Counter[str] = Counter()
states = {}
for one in told:
    if one["type"] == "RECORD":
        record = one["record"]
        is_pull = "pull_request" in record["data"] and record["stream"] == "issues"
        # Its issues hold pull requests, which it reads once more as such.
        counts["issues that are pulls" if is_pull else STREAMS[record["stream"]]] += 1
    elif one["type"] == "STATE":
        states[one["state"]["stream"]["stream_descriptor"]["name"]] = one["state"]
state.write_text(json.dumps(list(states.values())))
print(json.dumps(counts))
