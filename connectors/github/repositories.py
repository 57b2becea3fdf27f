"""Asks GitHub, and finds the repositories that are to be read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from contextframe_beam.connectors.http import (
    HttpClient,
    HttpError,
    HttpRequest,
    HttpResponse,
)
from contextframe_beam.connectors.http.judges import usual
from contextframe_beam.connectors.http.retry import Verdict, stated_wait
from contextframe_beam.errors import ConfigError, ConnectorError

_TOO_SLOW = (502, 504)


@dataclass(frozen=True)
class Choice:
    """Which repositories are read.

    Attributes:
        repositories: By name, or by a pattern of the names of one owner.
        organizations: Owners all of whose repositories are read.
        include: Patterns of which those that are not named have to match one.
        exclude: Patterns of those that are left out.
        archived: Whether archived ones are read.
        forks: Whether forks are read.
        is_app: Whether the account is an app.

    Raises:
        ConfigError: a name is none.
    """

    repositories: Sequence[str]
    organizations: Sequence[str] = ()
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    archived: bool = False
    forks: bool = False
    is_app: bool = False

    def __post_init__(self) -> None:
        for name in self.repositories:
            owner, slash, rest = name.partition("/")
            if not (owner and slash and rest) or "/" in rest or "*" in owner:
                raise ConfigError(
                    f"repositories holds {name!r}; write owner/name, as in acme/app or acme/*"
                )

    def found(
        self, http: HttpClient, at_once: int, skip: Callable[[str, object], object]
    ) -> Iterator[dict[str, Any]]:
        """Yields the repositories that are read, each once.

        Args:
            http: Asks GitHub.
            at_once: How many requests may be open.
            skip: Is told what cannot be seen, and why.

        Raises:
            ConnectorError: GitHub refuses the token, or cannot be asked.
        """
        seen: set[int] = set()
        for one, is_named in self._all(http, at_once, skip):
            if (is_named or self._is_wanted(one)) and one["id"] not in seen:
                seen.add(one["id"])
                yield one

    def _all(
        self, http: HttpClient, at_once: int, skip: Callable[[str, object], object]
    ) -> Iterator[tuple[dict[str, Any], bool]]:
        """Yields repositories, and whether each was named."""
        named = [one for one in self.repositories if "*" not in one and "?" not in one]
        asked = [HttpRequest("GET", f"repos/{one}") for one in named]
        answers = http.all(asked, at_once=at_once, raise_for_status=False)
        for name, answer in zip(named, answers, strict=True):
            try:
                yield _repository(answer), True
            except HttpError as error:
                if not error.is_unreadable:
                    raise
                skip(name, error)
        patterns = [one.lower() for one in self.repositories if one not in named]
        owners = [*self.organizations, *(one.partition("/")[0] for one in patterns)]
        whole = {one.lower() for one in self.organizations}
        for owner in dict.fromkeys(owners):
            for one in _of_owner(http, owner, skip):
                name = str(one.get("full_name")).lower()
                if owner.lower() in whole or any(fnmatchcase(name, each) for each in patterns):
                    yield one, False
        if not self.repositories and not self.organizations:
            first = "installation/repositories" if self.is_app else "user/repos"
            for one in _followed(http, f"{first}?per_page=100"):
                yield one, False

    def _is_wanted(self, one: Mapping[str, Any]) -> bool:
        name = str(one.get("full_name")).lower()
        if self.include and not any(fnmatchcase(name, each.lower()) for each in self.include):
            return False
        if any(fnmatchcase(name, each.lower()) for each in self.exclude):
            return False
        return (self.archived or not one.get("archived")) and (self.forks or not one.get("fork"))


class LeftOutError(ConnectorError):
    """A part of a repository that cannot be read, while others can."""


class TooSlowError(HttpError):
    """An answer that takes GitHub too long; a smaller one may not."""


def judged_page(response: HttpResponse) -> Verdict:
    """Does not ask again for a page that takes too long, as it is."""
    if response.status in _TOO_SLOW:
        return TooSlowError(_refusal(response), response.status)
    return usual(response)


def _of_owner(
    http: HttpClient, owner: str, skip: Callable[[str, object], object]
) -> Iterator[dict[str, Any]]:
    try:
        yield from _followed(http, f"orgs/{owner}/repos?per_page=100")
        return
    except HttpError as error:
        if not error.is_unreadable:
            raise
    # A person is no organization.
    try:
        yield from _followed(http, f"users/{owner}/repos?per_page=100")
    except HttpError as error:
        if not error.is_unreadable:
            raise
        skip(owner, error)


def _followed(http: HttpClient, url: str | None) -> Iterator[dict[str, Any]]:
    while url:
        response = http.send(HttpRequest("GET", url))
        told = response.json()
        yield from told.get("repositories", ()) if isinstance(told, Mapping) else told
        url = response.links().get("next")


def _repository(answer: HttpResponse) -> dict[str, Any]:
    if answer.status >= 400:
        verdict = usual(answer)
        if isinstance(verdict, Exception):
            raise verdict
        stated = stated_wait(answer.status, answer.headers, time.time())
        is_limit = verdict is not None or stated is not None
        raise HttpError(_refusal(answer), answer.status, is_limit)
    told = answer.json()
    if not isinstance(told, dict) or not isinstance(told.get("id"), int):
        raise ConnectorError(f"{answer.url} gave no repository; check base_url")
    return told


def _refusal(response: HttpResponse) -> str:
    try:
        told = response.json()
    except ConnectorError:
        told = None
    message = told.get("message") if isinstance(told, Mapping) else None
    why = message or response.excerpt()
    hint = "; the token is wrong, has ended or was revoked" if response.status == 401 else ""
    return f"{response.sent.method} {response.url} answered {response.status} ({why}){hint}"
