"""Reads channels of Slack with LlamaIndex's reader, and prints how many messages it found."""

from __future__ import annotations

import functools
import json
import re
import sys

import slack_sdk
from llama_index.readers.slack import SlackReader

url, token = sys.argv[1:]
# The reader takes no address, and asks a method of which the world knows nothing.
slack_sdk.WebClient.api_test = lambda _: {"ok": True}
slack_sdk.WebClient = functools.partial(slack_sdk.WebClient, base_url=url)

reader = SlackReader(token)
found = reader.load_data(channel_ids=reader.get_channel_ids([".*"]))
text = "\n".join(one.text for one in found)
counts = {
    "messages": len(set(re.findall(r"Message \d+\.", text))),
    "replies": len(set(re.findall(r"Reply \d+ to \d+\.", text))),
}
print(json.dumps(counts))
