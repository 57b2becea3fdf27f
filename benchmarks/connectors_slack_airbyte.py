"""Reads channels of Slack with Airbyte's source, and prints how many messages it found.

It knows one address only, so its requests are led to the world.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

STREAMS = ("channel_messages", "threads")
RUN = """
import sys
import requests

world = sys.argv.pop(1)
send = requests.Session.send

def sent(session, request, **how):
    request.url = request.url.replace("https://slack.com/api/", world)
    return send(session, request, **how)

requests.Session.send = sent
from source_slack.run import run
run()
"""

url, token, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])


def messages(*arguments: str) -> list[dict]:
    command = [sys.executable, "-c", RUN, url, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


folder.mkdir(parents=True, exist_ok=True)
config, catalog, state = (folder / f"{name}.json" for name in ("config", "catalog", "state"))
settings = {
    "credentials": {"option_title": "API Token Credentials", "api_token": token},
    "start_date": "2026-01-01T00:00:00Z",
    # As long as ours, by default none.
    "lookback_window": 30,
    "join_channels": False,
}
config.write_text(json.dumps(settings))
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
texts = [one["record"]["data"]["text"] for one in told if one["type"] == "RECORD"]
states = {
    one["state"]["stream"]["stream_descriptor"]["name"]: one["state"]
    for one in told
    if one["type"] == "STATE"
}
state.write_text(json.dumps(list(states.values())))
text = "\n".join(texts)
counts = {
    "messages": len(set(re.findall(r"Message \d+\.", text))),
    "replies": len(set(re.findall(r"Reply \d+ to \d+\.", text))),
    "records": len(texts),
}
print(json.dumps(counts))
