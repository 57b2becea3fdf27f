"""Tokens that expire: stored for all processes of a user, and renewed once for all of them.

A token from a login, or a refresh token that rotates, is stored under a reference, and renewed
tokens replace it there. Other renewed tokens are shared through a private file, so that one worker
renews and the others read the result.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.http.request import HttpError, logger
from contextframe_beam.connectors.http.retry import seconds_until
from contextframe_beam.connectors.shared_files import (
    locked,
    locked_itself,
    shared_file,
    write_private,
)
from contextframe_beam.errors import ConfigError, ConnectorError, SecretError

# A token is renewed a little before it expires, if that leaves most of its life.
_EARLY_SECONDS = 300.0
_EARLY_SHARE = 0.1
# So many tokens are remembered by how often they were given out.
_MOST_GIVEN = 1000
#: For how long threads get the error of a failed renewal that they waited for.
FAILURE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """A token from a server.

    Attributes:
        access: The access token, which is sent with each request.
        refresh: The refresh token, which gets a new token, if there is one.
        renew_at: When to renew it, in seconds since 1970; None if that is unknown.
    """

    access: str
    refresh: str | None = None
    renew_at: float | None = None

    @property
    def fresh(self) -> bool:
        """Whether it may be used."""
        return bool(self.access) and (self.renew_at is None or time.time() < self.renew_at)

    @classmethod
    def of(cls, answer: Mapping[str, Any], refresh: str | None = None) -> Token:
        """Makes a token from the answer of a token endpoint.

        Args:
            answer: `access_token`, and perhaps `refresh_token`, `expires_in` or `expires_at`, a
                time in any form; with `expires_in` of 0 or less, some servers mean that it never
                expires.
            refresh: The refresh token that stays valid if the answer has no new one.

        Raises:
            ConnectorError: it has no access token.
        """
        access = answer.get("access_token")
        if not isinstance(access, str) or not access:
            given = ", ".join(answer) or "nothing"
            raise ConnectorError(f"the token endpoint gave no access_token (it gave {given})")
        renew_at = seconds_of(answer.get("renew_at"))
        if renew_at is None:
            now = time.time()
            lasts = seconds_of(answer.get("expires_in"))
            if lasts is None and answer.get("expires_at") is not None:
                lasts = seconds_until(str(answer["expires_at"]), now)
            elif lasts is not None and lasts <= 0:
                lasts = None
            if lasts is not None:
                renew_at = now + lasts - min(_EARLY_SECONDS, max(0.0, lasts) * _EARLY_SHARE)
        kept = answer.get("refresh_token") or refresh
        return cls(access, str(kept) if kept else None, renew_at).registered()

    def registered(self) -> Token:
        """Returns the token after making sure that no message shows it."""
        for value in (self.access, self.refresh):
            if value:
                secrets.register(value)
        return self

    def document(self) -> dict[str, Any]:
        """Returns it as the JSON object that is stored."""
        values = {
            "access_token": self.access,
            "refresh_token": self.refresh,
            "renew_at": self.renew_at,
        }
        return {name: value for name, value in values.items() if value is not None}

    def __repr__(self) -> str:
        return "Token(***)"


class TokenStore:
    """Stores the token of one account.

    Args:
        reference: `file:PATH` or `keyring:SERVICE/NAME` contain the token and receive the new
            one; `env:NAME` and `gcp-secret:...` only give the first token. None: there is no first
            token.
        name: The purpose of the token; the same in all processes.
    """

    def __init__(self, reference: str | None, name: str) -> None:
        self.reference = None if reference is None else str.__str__(reference)
        place = self.reference or ""
        if place.startswith("file:"):
            place = f"file:{os.path.abspath(_path_of(place))}"
        self._shared = shared_file("token", place, name)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other threads and processes from renewing the token at the same time.

        That includes processes that share only the file of the reference, such as containers.
        """
        with contextlib.ExitStack() as held:
            held.enter_context(locked(self._shared.with_suffix(".lock")))
            if self.reference is not None and self.reference.startswith("file:"):
                held.enter_context(locked_itself(_path_of(self.reference)))
            yield

    def load(self) -> Token | None:
        """Returns the newest token.

        Raises:
            SecretError: the reference cannot be read.
        """
        given = None if self.reference is None else read_token(self.reference)
        try:
            document = json.loads(self._shared.read_text(encoding="utf-8"))
            shared = Token.of(document)
        except (OSError, ValueError, AttributeError):
            return given  # it was never renewed
        # A token that a person stored under the reference is newer than the renewed ones.
        if (
            given is None
            or document.get("given") == _digest(given)
            or given.refresh == shared.refresh
        ):
            return shared
        return given

    def save(self, token: Token, before: Token | None) -> None:
        """Stores a renewed token.

        Args:
            token: The new token.
            before: The token from `load`.
        """
        given = None if self.reference is None else read_token(self.reference)
        document = token.document()
        if given is not None:
            document["given"] = _digest(given)
        write_private(self._shared, json.dumps(document))
        rotated = token.refresh and (before is None or token.refresh != before.refresh)
        if rotated and self.reference is not None and self._stored_back(token):
            # From now on, any other token under the reference was stored by a person.
            document["given"] = _digest(token)
            write_private(self._shared, json.dumps(document))

    def _stored_back(self, token: Token) -> bool:
        assert self.reference is not None
        try:
            write_token(self.reference, token)
            return True
        except (ConfigError, SecretError) as error:
            logger.warning(
                "the refresh token in %s was replaced by its server, but the new one cannot "
                "be stored there (%s); it is kept on this machine only, so give a file: or "
                "keyring: reference",
                self.reference,
                error,
            )
        return False


class TokenSource:
    """Returns the current token to all threads, and renews it once for all of them.

    Args:
        fetch: Gets a new token; its argument is the last one, if there is one.
        store: Stores it.
    """

    def __init__(self, fetch: Callable[[Token | None], Token], store: TokenStore) -> None:
        self._fetch = fetch
        self._store = store
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._failure: tuple[float, str, int] | None = None
        self._given: Counter[str] = Counter()

    def current(self) -> Token:
        """Returns a token that has not expired.

        Raises:
            ConnectorError: none can be had.
        """
        token = self._token
        if token is None or not token.fresh:
            token = self._renewed(None)
        if len(self._given) >= _MOST_GIVEN:
            self._given.clear()
        self._given[token.access] += 1
        return token

    def renew(self, used: str) -> bool:
        """Makes sure that `current` does not return the refused token again.

        Args:
            used: The access token of the refused request.

        Returns:
            True: the request may be sent again with it.

        Raises:
            ConnectorError: none can be had.
        """
        # A server may issue the same text again as a valid token.
        self._renewed(used)
        return True

    def is_shared(self, used: str) -> bool:
        """Returns whether a token was given out more than once."""
        return self._given[used] > 1

    def _renewed(self, used: str | None) -> Token:
        with self._lock:
            token = self._token
            if token is not None and token.fresh and token.access != used:
                return token
            self._raise_recent_failure()
            try:
                with self._store.lock():
                    token = self._store.load()
                    if token is None or not token.fresh or token.access == used:
                        token, before = self._fetch(token), token
                        if not token.fresh:
                            # A new token that has already expired is good until it is refused.
                            token = replace(token, renew_at=None)
                        self._store.save(token, before)
            except ConnectorError as error:
                status = error.status if isinstance(error, HttpError) else 0
                self._failure = (time.monotonic(), str(error), status)
                raise
            self._token = token
            return token

    def _raise_recent_failure(self) -> None:
        if self._failure is not None:
            when, message, status = self._failure
            if time.monotonic() - when < FAILURE_SECONDS:
                raise HttpError(message, status)
            self._failure = None


def read_token(reference: str) -> Token:
    """Returns the token at a reference: JSON from a login, or only a refresh token.

    Raises:
        SecretError: it cannot be read.
    """
    kind = reference.partition(":")[0]
    if kind == "file":
        # Bypass the cache of secrets, because other processes store new tokens.
        try:
            text = _path_of(reference).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise SecretError(
                f"cannot read the token in {reference} ({reason}); run contextframe-beam login, "
                "or put it there"
            ) from None
    elif kind == "keyring":
        text = secrets.read_keyring(reference)
    else:
        text = secrets.resolve(reference)
    if not text:
        raise SecretError(f"there is no token in {reference}; run contextframe-beam login")
    if not text.startswith("{"):
        return Token("", text).registered()
    try:
        document = json.loads(text)
        if not document.get("access_token"):
            return Token("", str(document["refresh_token"])).registered()
        return Token.of(document)
    except (ValueError, KeyError, AttributeError):
        raise SecretError(
            f"the value of {reference} is not a token: it is JSON without access_token and "
            "refresh_token; run contextframe-beam login"
        ) from None


def require_writable(reference: str | None) -> None:
    """Refuses a place for a refresh token that rotates if the new one cannot be stored there.

    Raises:
        ConfigError: nothing can be stored there, so the next run could not renew its token.
    """
    kind = (reference or "").partition(":")[0]
    problem = ""
    if kind == "file":
        path = _path_of(reference or "")
        target = Path(os.path.realpath(path))
        if not os.access(target.parent, os.W_OK | os.X_OK):
            problem = f"{reference} is in a directory that this user cannot write to"
    elif kind != "keyring":
        problem = f"{reference} cannot be written" if reference else "it is given as plain text"
    if problem:
        raise ConfigError(
            f"the refresh token is replaced by its server with each renewal, and {problem}; the "
            "old one would be lost with the first run. Put it into a file and give file:PATH, or "
            "into the keyring and give keyring:NAME"
        )


def write_token(reference: str, token: Token) -> None:
    """Stores a token at a `file:` or `keyring:` reference, where only its owner can read it.

    A file with only a refresh token keeps that form.

    Raises:
        ConfigError: this reference cannot store a token.
        SecretError: storing fails.
    """
    kind = reference.partition(":")[0]
    text = json.dumps(token.document())
    if kind == "keyring":
        secrets.write_keyring(reference, text)
        return
    if kind != "file":
        raise ConfigError(f"nothing can be stored in {reference}")
    path = _path_of(reference)
    try:
        if path.exists() and token.refresh:
            before = path.read_text(encoding="utf-8").strip()
            if before and not before.startswith("{"):
                text = token.refresh + "\n"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, text)
    except OSError as error:
        raise SecretError(f"cannot store the token in {reference} ({error.strerror})") from error


def _path_of(reference: str) -> Path:
    return Path(os.path.expanduser(reference.partition(":")[2]))


def _digest(token: Token) -> str:
    text = token.refresh or token.access
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def seconds_of(value: Any) -> float | None:
    """Returns a number of seconds, even from text; None for anything else."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
