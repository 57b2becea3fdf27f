"""A program that speaks the protocols of Airbyte and Singer, as a file says; it needs no library.

    python speaking.py airbyte spec|check|discover|read --config ... --catalog ... --state ...
    python speaking.py singer --config ... [--discover | --catalog ... --state ...]

The configuration names the file (`script`). It holds the answers, and for each stream the lines or
the records of a reading. A line may be an action in place of a message: {"do": "exit", "code": 3}.
The program notes what it got beside the script.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time


def options(arguments: list[str]) -> dict[str, str]:
    found = {}
    for name, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if name.startswith("--"):
            found[name[2:]] = value
    return found


def read(path: str | None) -> object:
    if not path:
        return None
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def say(message: object) -> None:
    if isinstance(message, dict) and "do" in message:
        act(message)
        return
    text = message if isinstance(message, str) else json.dumps(message)
    print(text, flush=True)


def act(action: dict) -> None:
    if action["do"] == "exit":
        print(action.get("stderr", ""), file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(action["code"])
    if action["do"] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action["do"] == "hang":
        with open(action["pid"], "w", encoding="utf-8") as file:
            file.write(str(os.getpid()))
        time.sleep(120)


def airbyte(verb: str, given: dict[str, str], script: dict, got: dict) -> None:
    if verb == "check":
        say(script.get("check") or connection("SUCCEEDED"))
    elif verb == "discover":
        say({"type": "CATALOG", "catalog": {"streams": script["streams"]}})
    else:
        states = {}
        given = got["state"]
        for one in given if isinstance(given, list) else []:
            if one["type"] == "STREAM":
                stream = one["stream"]
                states[stream["stream_descriptor"]["name"]] = stream["stream_state"]
        for one in got["catalog"]["streams"]:
            name = one["stream"]["name"]
            for line in script.get("lines", {}).get(name, ()):
                say(line)
            if name in script.get("records", {}):
                spoken(name, one, script["records"][name], states.get(name, {}))


def spoken(name: str, configured: dict, records: list[dict], state: dict) -> None:
    cursor = ".".join(configured["cursor_field"])
    known = reached = state.get("cursor")
    for record in records:
        if cursor and known is not None and record.get(cursor, known) < known:
            continue
        say({"type": "RECORD", "record": {"stream": name, "data": record, "emitted_at": 1}})
        if cursor and record.get(cursor) is not None:
            reached = max(reached or record[cursor], record[cursor])
    stream = {"stream_descriptor": {"name": name}, "stream_state": {"cursor": reached}}
    say({"type": "STATE", "state": {"type": "STREAM", "stream": stream}})


def connection(status: str, message: str = "") -> dict:
    return {
        "type": "CONNECTION_STATUS",
        "connectionStatus": {"status": status, "message": message},
    }


def singer(given: dict[str, str], script: dict, got: dict) -> None:
    if "discover" in given:
        print(json.dumps({"streams": script["streams"]}, indent=2))
        return
    bookmarks = (got["state"] or {}).get("bookmarks", {})
    for one in got["catalog"]["streams"]:
        name = one["tap_stream_id"]
        if not one["metadata"][0]["metadata"].get("selected"):
            continue
        say({"type": "SCHEMA", "stream": name, "schema": {}, "key_properties": ["id"]})
        for line in script.get("lines", {}).get(name, ()):
            say(line)
        key = one.get("replication_key")
        known = bookmarks.get(name, {}).get("value")
        records = script.get("records", {}).get(name, ())
        for record in records:
            if key and known is not None and record[key] < known:
                continue
            say({"type": "RECORD", "stream": name, "record": record})
        if key and records:
            reached = max(record[key] for record in records)
            state = {"bookmarks": {**bookmarks, name: {"value": reached}}}
            say({"type": "STATE", "value": state})


def main() -> None:
    dialect, *arguments = sys.argv[1:]
    given = options(arguments)
    if dialect == "airbyte" and arguments[0] == "spec":
        # There is no configuration yet.
        say({"type": "SPEC", "spec": json.loads(os.environ["SPEAKING_SPEC"])})
        return
    got = {name: read(given.get(name)) for name in ("config", "catalog", "state")}
    path = got["config"]["script"]
    with open(f"{path}.got", "a", encoding="utf-8") as file:
        file.write(json.dumps({**got, "arguments": sys.argv}) + "\n")
    script = read(path)
    for line in script.get("before", ()):
        say(line)
    if dialect == "airbyte":
        airbyte(arguments[0], given, script, got)
    else:
        singer(given, script, got)


if __name__ == "__main__":
    main()
