"""MyConnector: the documents of an HTTP API, page by page."""

from typing import Any

from contextframe_beam import FrameRecord
from contextframe_beam.connectors import FieldMapper, Page, PaginatedConnector, Partition
from contextframe_beam.connectors.http import HttpRequest

from my_connector.auth import auth_of, check
from my_connector.utils import items_of, next_page_of

#: Begins the id of every document, so it must stay as it is.
NAME = "my-connector"


class MyConnector(PaginatedConnector):
    """Reads the documents of an API.

    Args:
        base_url: Where the API is.
        token: The token that it accepts, best as a reference (env:NAME).
        per_second: How many requests may be sent a second.
    """

    identity_args = ("base_url",)

    def __init__(self, base_url: str, token: str, per_second: float = 10) -> None:
        super().__init__()
        self.base_url = base_url
        # Pooled connections, retries and waiting are the client's business. Its statistics are in
        # get_stats() and in the metrics of a run.
        self.http = self.http_client(
            base_url, auth=auth_of(token), budget={"per_second": per_second}
        )
        self.mapper = FieldMapper(prefix=NAME, constants={"source": NAME})

    def authenticate(self) -> bool:
        """Asks the API whether it accepts the token."""
        check(self.http)
        self.authenticated = True
        return True

    def fetch_page(self, partition: Partition, cursor: Any) -> Page:
        """Returns one page; `cursor` is None for the first, then what the page before gave."""
        asked = {"page": cursor or 1}
        answer = self.http.send(HttpRequest("GET", "documents", params=asked)).json()
        return Page(items_of(answer), next_cursor=next_page_of(answer, cursor or 1))

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        """Turns a document into a record."""
        return self.mapper.map(item)
