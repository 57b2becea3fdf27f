"""A connector in a file of its own, whose documents tell where its secrets were looked up."""

KEY, PASSWORD = "key-of-the-workers", "password-of-the-workers"


def vault(imports: str, text: str) -> str:
    """Returns the Python of a connector `Vault` with an `api_key` and a `password`.

    Args:
        imports: Lines that import what `text` needs.
        text: The text of the document of each secret, as in an f-string; `item["value"]` is it.
    """
    return f'''
{imports}

from contextframe_beam import FrameRecord
from contextframe_beam.connectors import BaseConnector


class Vault(BaseConnector):
    identity_args = ()

    def __init__(self, api_key: str, password: str):
        super().__init__()
        self.api_key = api_key
        self.password = password

    def sync_documents(self):
        yield {{"id": "key", "value": str(self.api_key)}}
        yield {{"id": "password", "value": str(self.password)}}

    def map_to_frame_record(self, item):
        return FrameRecord(f"{text}", unique_id=item["id"])
'''
