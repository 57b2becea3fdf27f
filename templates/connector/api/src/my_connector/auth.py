"""How the API knows who asks.

Other ways are configured likewise, such as {"type": "oauth2_client_credentials", ...} or
{"type": "session", ...}; contextframe_beam.connectors.http.settings lists them.
"""

from typing import Any

from contextframe_beam.connectors.http import HttpClient, HttpRequest


def auth_of(token: str) -> dict[str, Any]:
    """Returns how requests authenticate."""
    return {"type": "bearer", "token": token}


def check(http: HttpClient) -> None:
    """Asks for something that only a known account gets.

    Raises:
        ConnectorError: the API refuses, or cannot be reached.
    """
    http.send(HttpRequest("GET", "me"))
