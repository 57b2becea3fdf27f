"""What goes wrong over HTTP, as exceptions that know the status."""

from __future__ import annotations

from contextframe_beam.errors import ConnectorError


class HttpError(ConnectorError):
    """A request that was refused, or that got no answer in spite of all attempts.

    The message names method, address, status and what to do; it never holds a credential.

    Attributes:
        status: The status of the last answer; 0 where there was none.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class TokenExpiredError(HttpError):
    """An answer that means that the token expired: it is renewed, and the request sent again.

    A judge returns it; it is raised where renewing does not help.
    """


class PassedOverError(HttpError):
    """An answer that may be passed over: whoever asked goes on as if there were nothing.

    A judge returns it; it is raised once there is no reason to send the request again.
    """
