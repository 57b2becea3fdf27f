"""Several tokens for one server, each with limits of its own: requests take turns with them."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from contextframe_beam.connectors.http.budget import Budget
from contextframe_beam.connectors.http.credentials import Auth, KeyAuth
from contextframe_beam.connectors.http.request import HttpRequest, HttpResponse


@dataclass(frozen=True, slots=True)
class Lane:
    """What one request goes with.

    Attributes:
        auth: Its credentials.
        budget: How many requests may be sent with them; a server's refusal pauses this one alone.
    """

    auth: Auth | None
    budget: Budget


class TokenPool:
    """Tokens in turn; one whose quota is used up is passed over while another has some.

    Args:
        tokens: The credentials of each token.
        budget: What each of them may send; they are counted apart, in all processes.
        server: The server's origin.
    """

    def __init__(self, tokens: Sequence[KeyAuth], budget: Budget, server: str) -> None:
        self._lanes = [Lane(one, _own(budget, one, server)) for one in tokens]
        self._turn = itertools.count()
        self._lock = threading.Lock()

    def next(self) -> Lane:
        """Returns the token whose turn it is, or else the one that has to wait the least."""
        with self._lock:
            first = next(self._turn) % len(self._lanes)
        turns = [*self._lanes[first:], *self._lanes[:first]]
        return min(turns, key=lambda lane: lane.budget.paused())

    def apply(self, request: HttpRequest) -> HttpRequest:
        """Returns the request with the token whose turn it is."""
        auth = self.next().auth
        assert auth is not None
        return auth.apply(request)

    def renew(self, response: HttpResponse) -> bool:
        """Returns False: a lane renews its own token."""
        return False

    def account(self) -> str:
        """Returns what tells these accounts from others; holds secrets."""
        return " ".join(one.auth.account() for one in self._lanes if isinstance(one.auth, KeyAuth))

    def __repr__(self) -> str:
        return f"TokenPool({len(self._lanes)} tokens)"


def _own(budget: Budget, token: KeyAuth, server: str) -> Budget:
    digest = hashlib.sha256(token.account().encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return Budget(budget.limits, f"{budget.name or server} token {digest}", budget.redis)
