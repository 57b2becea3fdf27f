"""Reads a folder of Google Drive with a peer's reader, and prints how much it found.

Neither takes an address: both make their clients by Google's library, which is led to the world.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

import googleapiclient.discovery as discovery
from google.oauth2.credentials import Credentials

url, _, folder = sys.argv[1].partition("#")
TEXT = ("Document ", "Text of a document", "Edited")
build = discovery.build


def led(name: str, version: str, **_: Any) -> Any:
    endpoint = {"api_endpoint": f"{url}/drive/v3/"}
    return build(name, version, credentials=credentials, client_options=endpoint)


credentials = Credentials("ya29.ada@acme.test")
discovery.build = led
if sys.argv[2] == "langchain":
    from langchain_google_community import GoogleDriveLoader
    from langchain_google_community.drive import GoogleDriveLoader as Loader

    Loader._load_credentials = lambda _: credentials

    class Text:
        """Makes a document of a file of text, as its loaders of files do."""

        def __init__(self, file: Any, **_: Any) -> None:
            self.file = file

        def load(self) -> list[Any]:
            from langchain_core.documents import Document

            return [Document(self.file.read().decode())]

    loader = GoogleDriveLoader(folder_id=folder, recursive=True, file_loader_cls=Text)
    texts = [one.page_content for one in loader.load()]
else:
    from llama_index.readers.google import GoogleDriveReader

    GoogleDriveReader._get_credentials = lambda _: credentials
    reader = GoogleDriveReader(folder_id=folder, service_account_key={"type": "service_account"})
    texts = [one.text for one in reader.load_data()]
kinds = ("documents" if any(word in one for word in TEXT) else "files" for one in texts)
print(json.dumps(Counter(kinds)))
