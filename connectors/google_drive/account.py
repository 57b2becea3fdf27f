"""An account of Google Drive: what is asked of Drive and of the editors' APIs in its name.

Reference: https://developers.google.com/workspace/drive/api/reference/rest/v3, and the same of
Sheets (v4) and Slides (v1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contextframe_beam.connectors.http.client import HttpClient
from contextframe_beam.connectors.http.request import (
    HttpError,
    HttpRequest,
    HttpResponse,
    origin_of,
)
from contextframe_beam.connectors.http.retry import Verdict, Wait
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import ConnectorError

#: The most files or changes of an answer.
PAGE_SIZE = 1000

_PEOPLE_SIZE = 100
_APPS = "application/vnd.google-apps."
FOLDER, SHORTCUT = f"{_APPS}folder", f"{_APPS}shortcut"

_PERMISSION = "id,type,role,emailAddress,domain,allowFileDiscovery,deleted,view,expirationTime"
_FILE = (
    "id,name,mimeType,parents,driveId,createdTime,modifiedTime,trashed,starred,description,"
    "webViewLink,owners(displayName,emailAddress),ownedByMe,sharedWithMeTime,"
    "lastModifyingUser(displayName,emailAddress),size,md5Checksum,headRevisionId,version,"
    "shortcutDetails(targetId,targetMimeType),capabilities(canDownload)"
)
_SHARING = f",hasAugmentedPermissions,inheritedPermissionsDisabled,permissions({_PERMISSION})"
_PERSON = "displayName,emailAddress"
_COMMENT = (
    f"id,createdTime,modifiedTime,resolved,content,author({_PERSON}),quotedFileContent(value),"
    f"mentionedEmailAddresses,replies(id,createdTime,modifiedTime,content,action,deleted,"
    f"author({_PERSON}),mentionedEmailAddresses)"
)
_TEXT = (
    "textElements(textRun(content,style(bold,italic,strikethrough,fontFamily,link(url))),"
    "paragraphMarker(bullet(nestingLevel,glyph)),autoText(content))"
)
_TABLE = f"table(tableRows(tableCells(text({_TEXT}))))"
_ELEMENT = f"objectId,title,description,shape(placeholder(type),text({_TEXT})),{_TABLE}"
_ELEMENT += ",image(contentUrl),video(url,id,source),wordArt(renderedText)"
# Groups stand in groups at most that deep in what is asked for.
_GROUPS = 3

_LIMITS = frozenset({"userRateLimitExceeded", "rateLimitExceeded", "sharingRateLimitExceeded"})
_USED_UP = frozenset({"dailyLimitExceeded", "quotaExceeded", "dailyLimitExceededUnreg"})
_DISABLED = frozenset({"accessNotConfigured", "SERVICE_DISABLED"})
_SCOPES = frozenset({"insufficientPermissions", "ACCESS_TOKEN_SCOPE_INSUFFICIENT"})
_ADVICE = {
    **dict.fromkeys(_USED_UP, "the quota of the project is used up for today"),
    **dict.fromkeys(_DISABLED, "enable this API in the project of the account"),
    **dict.fromkeys(
        _SCOPES,
        "let the account have the scope https://www.googleapis.com/auth/drive.readonly; a person's "
        "application default credentials have the scopes that were asked for at the login",
    ),
}


class DriveError(HttpError):
    """A refusal by Google.

    Attributes:
        reason: Google's name for it, as in `cannotDownloadFile`.
    """

    def __init__(self, message: str, status: int, reason: str) -> None:
        super().__init__(message, status, reason in _USED_UP)
        self.reason = reason

    @property
    def is_of_one(self) -> bool:
        """Whether Google refuses this one request, and may well answer others."""
        return super().is_of_one and self.reason not in _ADVICE

    @property
    def is_unreadable(self) -> bool:
        """Whether the account may not read it, or it is gone."""
        return super().is_unreadable and self.reason not in _ADVICE

    @property
    def is_missing(self) -> bool:
        """Whether there is no such file, or the account may not know of it."""
        return self.status == 404

    @property
    def is_disabled(self) -> bool:
        """Whether the project of the account has not enabled this API."""
        return self.reason in _DISABLED


def judged(response: HttpResponse) -> Verdict:
    """Judges an answer of Google by the reason that its refusals have.

    No answer says how long to wait, so each wait is twice as long as the one before.
    """
    status = response.status
    if status < 400 or status >= 500 or status == 401:
        return None
    reason, message = _told(response)
    if reason in _LIMITS or (status == 429 and reason not in _USED_UP):
        return Wait(1.0, f"a limit of Google ({reason})", doubles=True, shared=True)
    asked = f"{response.sent.method} {response.url}"
    advice = _ADVICE.get(reason, "")
    told = f"{asked} answered {status} {reason}: {message}{f'; {advice}' if advice else ''}"
    return DriveError(redact(told), status, reason)


def _told(response: HttpResponse) -> tuple[str, str]:
    """Returns the reason and the message of a refusal."""
    try:
        told = response.json()
    except ConnectorError:
        return str(response.status), response.excerpt()
    error = told.get("error") if isinstance(told, Mapping) else None
    if not isinstance(error, Mapping):
        return str(response.status), response.excerpt()
    places = [*(error.get("details") or ()), *(error.get("errors") or ())]
    reasons = [one["reason"] for one in places if isinstance(one, Mapping) and one.get("reason")]
    return str((*reasons, error.get("status"), response.status)[0]), str(error.get("message", ""))


@dataclass(frozen=True)
class Listed:
    """One answer of a list.

    Attributes:
        files: The files.
        following: The token of the next answer; None after the last.
        is_cut: Whether Google says that it has not searched everywhere.
    """

    files: list[dict[str, Any]]
    following: str | None
    is_cut: bool


@dataclass(frozen=True)
class Clients:
    """The clients of an account.

    Attributes:
        drive: For Drive.
        sheets: For Sheets.
        slides: For Slides.
        exports: By origin: for links to exports, which get the account's credentials.
    """

    drive: HttpClient
    sheets: HttpClient
    slides: HttpClient
    exports: Mapping[str, HttpClient]


class Account:
    """Asks in the name of one account.

    Args:
        clients: Its clients.
        with_sharing: Whether permissions are asked for with each file.
        at_once: How many requests of one page may be open.
    """

    def __init__(self, clients: Clients, with_sharing: bool, at_once: int) -> None:
        self._clients = clients
        self._at_once = at_once
        self._file = _FILE + (_SHARING if with_sharing else "")

    def me(self) -> dict[str, Any]:
        """Returns the account's name and address."""
        told = self._asked("drive/v3/about", fields=f"user({_PERSON},permissionId)").get("user")
        return dict(told) if isinstance(told, Mapping) else {}

    def drives(self) -> Iterator[dict[str, Any]]:
        """Yields the shared drives that the account is a member of."""
        yield from self._all("drive/v3/drives", "drives", pageSize=100, fields="drives(id,name)")

    def drive(self, identifier: str) -> dict[str, Any]:
        """Returns a shared drive."""
        return self._asked(f"drive/v3/drives/{identifier}", fields="id,name")

    def file(self, identifier: str) -> dict[str, Any]:
        """Returns what is known of a file or a folder; `root` is the account's My Drive."""
        return self._asked(
            f"drive/v3/files/{identifier}", supportsAllDrives="true", fields=self._file
        )

    def files(self, query: str, drive: str | None, token: str | None = None) -> Listed:
        """Returns files that a query means, a thousand at a time.

        Args:
            query: As Drive takes it.
            drive: The shared drive to search; by default what is the account's or shared with it.
            token: The `following` of the answer before.
        """
        where: dict[str, Any] = (
            {"corpora": "drive", "driveId": drive} if drive else {"corpora": "user"}
        )
        told = self._asked(
            "drive/v3/files",
            q=query,
            pageSize=PAGE_SIZE,
            pageToken=token,
            fields=f"nextPageToken,incompleteSearch,files({self._file})",
            supportsAllDrives="true",
            includeItemsFromAllDrives="true",
            **where,
        )
        is_cut = told.get("incompleteSearch") is True
        return Listed(_objects(told, "files"), told.get("nextPageToken"), is_cut)

    def start(self, drive: str | None) -> str:
        """Returns the token of the changes from now on."""
        told = self._asked(
            "drive/v3/changes/startPageToken", supportsAllDrives="true", driveId=drive
        )
        return str(told.get("startPageToken"))

    def changes(self, token: str, drive: str | None) -> HttpResponse:
        """Returns a thousand changes, as the answer that tells them.

        Args:
            token: From where on.
            drive: The shared drive; by default all that the account sees.
        """
        file = f"changes(changeType,removed,fileId,driveId,file({self._file}))"
        return self._sent(
            "drive/v3/changes",
            pageToken=token,
            driveId=drive,
            pageSize=PAGE_SIZE,
            includeRemoved="true",
            supportsAllDrives="true",
            includeItemsFromAllDrives="true",
            fields=f"nextPageToken,newStartPageToken,{file}",
        )

    def comments(self, files: Sequence[str]) -> list[list[dict[str, Any]] | DriveError]:
        """Returns the open comments on some files, or why those of one may not be read."""
        return self._lists(files, "comments", f"nextPageToken,comments({_COMMENT})")

    def permissions(self, files: Sequence[str]) -> list[list[dict[str, Any]] | DriveError]:
        """Returns all permissions of some files or folders, or why they may not be read."""
        return self._lists(
            files,
            "permissions",
            f"nextPageToken,permissions({_PERMISSION})",
            supportsAllDrives="true",
        )

    def export(self, identifier: str, kind: str) -> bytes:
        """Returns a document of an editor as another media type."""
        return self._sent(f"drive/v3/files/{identifier}/export", mimeType=kind).body

    def export_by_link(self, identifier: str, kind: str) -> bytes | None:
        """Returns what is too large to be exported otherwise; None where there is no link."""
        told = self._asked(
            f"drive/v3/files/{identifier}", supportsAllDrives="true", fields="exportLinks"
        )
        link = (told.get("exportLinks") or {}).get(kind)
        client = self._clients.exports.get(origin_of(link)) if isinstance(link, str) else None
        if client is None:
            return None
        return client.send(HttpRequest("GET", str(link), judge=judged)).body

    def spreadsheet(self, identifier: str) -> dict[str, Any]:
        """Returns the shown values of all sheets of a spreadsheet."""
        rows = "rowData(values(formattedValue,hyperlink,note))"
        fields = f"sheets(properties(title,sheetType,hidden),data({rows}))"
        return self._asked(
            f"v4/spreadsheets/{identifier}", client=self._clients.sheets, fields=fields
        )

    def presentation(self, identifier: str) -> dict[str, Any]:
        """Returns the texts of all slides of a presentation, with the speaker's notes."""
        element = _ELEMENT
        for _ in range(_GROUPS):
            element = f"{_ELEMENT},elementGroup(children({element}))"
        notes = f"notesProperties(speakerNotesObjectId),pageElements({_ELEMENT})"
        slide = f"objectId,pageElements({element}),slideProperties(isSkipped,notesPage({notes}))"
        return self._asked(
            f"v1/presentations/{identifier}",
            client=self._clients.slides,
            fields=f"title,slides({slide})",
        )

    def bytes_of(self, identifier: str, may_harm: bool) -> tuple[HttpClient, str]:
        """Returns the client and the address of the bytes of a file.

        Args:
            identifier: The file.
            may_harm: Whether one that Google takes for malware is read.
        """
        harm = "&acknowledgeAbuse=true" if may_harm else ""
        path = f"drive/v3/files/{identifier}?alt=media&supportsAllDrives=true{harm}"
        return self._clients.drive, path

    def _lists(
        self, files: Sequence[str], name: str, fields: str, **params: Any
    ) -> list[list[dict[str, Any]] | DriveError]:
        """Returns a list of each of some files, several at once."""
        found: list[list[dict[str, Any]] | DriveError] = [[] for _ in files]
        asked = [(number, str(one), "") for number, one in enumerate(files)]
        while asked:
            requests = [
                HttpRequest(
                    "GET",
                    f"drive/v3/files/{one}/{name}",
                    {**params, "pageSize": _PEOPLE_SIZE, "pageToken": token or None}
                    | {"fields": fields},
                )
                for _, one, token in asked
            ]
            answers = self._clients.drive.all(
                requests, at_once=self._at_once, raise_for_status=False
            )
            following = []
            for (number, one, _), answer in zip(asked, answers, strict=True):
                known = found[number]
                if answer.status >= 400:
                    found[number] = _refusal(answer)
                elif isinstance(known, list):
                    told = answer.json()
                    known += _objects(told, name)
                    if token := told.get("nextPageToken"):
                        following.append((number, one, str(token)))
            asked = following
        return found

    def _all(self, path: str, name: str, fields: str, **params: Any) -> Iterator[dict[str, Any]]:
        token = None
        while True:
            told = self._asked(path, fields=f"nextPageToken,{fields}", pageToken=token, **params)
            yield from _objects(told, name)
            token = told.get("nextPageToken")
            if not token:
                return

    def _asked(self, path: str, client: HttpClient | None = None, **params: Any) -> dict[str, Any]:
        response = self._sent(path, client, **params)
        told = response.json()
        if not isinstance(told, dict):
            raise response.error("is no object of Google; check base_url")
        return told

    def _sent(self, path: str, client: HttpClient | None = None, **params: Any) -> HttpResponse:
        return (client or self._clients.drive).send(HttpRequest("GET", path, params))


def _refusal(answer: HttpResponse) -> DriveError:
    """Returns why one list cannot be read.

    Raises:
        HttpError: no other list can be read either.
    """
    error = judged(answer)
    if isinstance(error, DriveError) and error.is_of_one:
        return error
    raise error if isinstance(error, Exception) else answer.refused("")


def _objects(told: Any, name: str) -> list[dict[str, Any]]:
    found = told.get(name) if isinstance(told, Mapping) else None
    objects: Iterable[Any] = found if isinstance(found, list) else ()
    return [one for one in objects if isinstance(one, dict)]
