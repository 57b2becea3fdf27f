"""Reads pages of Notion with LlamaIndex's reader, and prints what it found.

It asks Notion's own address, which is led to the world here. It fails on a page of more than a
hundred blocks, and on the databases that its own search finds, so there are none. LangChain's
loader asks for databases as an older version of the API did, which the world does not speak.
"""

from __future__ import annotations

import json
import sys

import requests
from llama_index.readers.notion import NotionPageReader

url, token = sys.argv[1:3]
sent = requests.request
requests.request = lambda method, address, **how: sent(
    method, address.replace("https://api.notion.com", url), **how
)
reader = NotionPageReader(integration_token=token)
found = reader.load_data(page_ids=reader.search(""))
nested = sum("Nested" in one.text for one in found)
print(json.dumps({"pages": len(found), "nested blocks": nested}))
