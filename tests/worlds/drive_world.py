"""Google Drive as an account sees it, with the editors' APIs for spreadsheets and presentations.

Requests, masks and answers are checked against Google's discovery documents. The world is faithful
in what a connector trips over: what is below a folder shows no change when the folder is renamed,
moved, shared, trashed or deleted; a change has only the file as it is now; times move with content
and names only; permissions of a shared drive are listed by themselves; limits are 403s with a
reason, and no Retry-After; exports end at 10 MB; comments have pages of their own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.worlds.described import Answer, Asked, Together, Window, World
from tests.worlds.discovery import Discovery, mask_of, masked
from tests.worlds.drive_files import ADA, APPS, FOLDER, SHARES, Files, Item, may
from tests.worlds.drive_query import query_of

EXPORT_LIMIT = 10 << 20
REFRESH_TOKEN = "1//refresh-of-ada"

DESCRIPTION = Together(
    Discovery.read("drive.discovery.json"),
    Discovery.read("sheets.discovery.json"),
    Discovery.read("slides.discovery.json"),
)

_REASONS = {
    400: "invalid",
    401: "authError",
    403: "insufficientFilePermissions",
    404: "notFound",
    410: "fullSyncRequired",
}


class DriveWorld(World):
    """A server over `Files`.

    Attributes:
        files: What there is.
        limit: The limit of requests, if there is one.
        expired: Page tokens of changes up to this number are not taken any more.
        incomplete: Whether searches say that they are not.
        disabled: The APIs that the project has not enabled: sheets, slides.
        refusing: The reason of a 403 by the id of the file, for its content or its comments.
        delegated: Whom the service account may act for.
        scopes: The scopes that were asked for.
        revoked: Tokens that are no longer taken.
        renews: Whether others are given in their place.
        robots: Whose files a service account sees, by its name; Ada's by default.
    """

    description = DESCRIPTION

    def __init__(self) -> None:
        self.files = Files()
        self.limit: Window | None = None
        self.expired = 0
        self.expired_status = 404
        self.incomplete = False
        self.disabled: set[str] = set()
        self.refusing: dict[str, str] = {}
        self.delegated = {ADA, "bob@acme.test"}
        self.scopes: set[str] = set()
        self.revoked: set[str] = set()
        self.renews = True
        self.robots: dict[str, str] = {}
        self._refused = 0
        # A list is asked for page by page.
        self._listed: dict[Any, list[dict[str, Any]]] = {}
        self._listed_at = 0
        self._below: dict[str | None, list[Item]] = {}
        self._routes: dict[str, Callable[[Asked, str], Any]] = {
            "/drive/v3/about": self._about,
            "/drive/v3/drives": self._drives,
            "/drive/v3/drives/{driveId}": self._one_drive,
            "/drive/v3/files": self._list,
            "/drive/v3/files/{fileId}": self._get,
            "/drive/v3/files/{fileId}/export": self._export,
            "/drive/v3/files/{fileId}/comments": self._comments,
            "/drive/v3/files/{fileId}/permissions": self._permissions,
            "/drive/v3/changes": self._changes,
            "/drive/v3/changes/startPageToken": self._start,
            "/v4/spreadsheets/{spreadsheetId}": self._editor,
            "/v1/presentations/{+presentationId}": self._editor,
        }
        super().__init__()

    def account(self, key: str, name: str = "robot") -> dict[str, str]:
        """Returns the key file of a service account whose tokens this world gives.

        Args:
            key: A private key, PEM.
            name: What the account is called; `robots` says whose files it sees.
        """
        return {
            "type": "service_account",
            "project_id": "acme",
            "client_email": f"{name}@acme.iam.gserviceaccount.com",
            "client_id": "1",
            "private_key_id": "1",
            "private_key": key,
            "token_uri": f"{self.url}/token",
        }

    def sent(self, path: str) -> int:
        """Returns how many requests went to paths that a pattern matches."""
        return sum(re.fullmatch(path, one.asked.path) is not None for one in self.served)

    @property
    def content_requests(self) -> int:
        """How many requests asked for what is in files."""
        return self.sent(r".*/export|/v4/.*|/v1/.*|/feeds/.*") + sum(
            one.asked.query.get("alt") == "media" for one in self.served
        )

    def answer(self, asked: Asked) -> Answer:
        """Answers a request."""
        person = self._person(asked)
        if person is None:
            return self._fail(401, "Request had invalid authentication credentials.")
        if self.limit is not None and self.limit.wait(person):
            self._refused += 1
            if self._refused % 2:
                return self._fail(403, "User rate limit exceeded.", "userRateLimitExceeded")
            return self._fail(429, "Too many requests.", "rateLimitExceeded")
        answer = self._routes[asked.template](asked, person)
        if not isinstance(answer, Answer):
            answer = Answer(body=masked(answer, mask_of(asked.query.get("fields", "*"))))
        return answer

    def beside(self, asked: Asked) -> Answer | None:
        """Gives tokens, and exports by their links."""
        if asked.path == "/token" and asked.method == "POST":
            return self._token(asked.body or {})
        if asked.path == "/feeds/export":
            item = self.files.items.get(asked.query.get("id", ""))
            if self._person(asked) is None or item is None:
                return Answer(401, body=b"")
            return Answer(200, {"Content-Type": "text/markdown"}, item.exports["text/markdown"])
        return None

    def unknown(self, asked: Asked) -> Answer:
        """Answers a request that the description does not have."""
        return self._fail(404, "Not found.")

    def _token(self, form: Mapping[str, str]) -> Answer:
        if form.get("grant_type") == "refresh_token":
            if form.get("refresh_token") != REFRESH_TOKEN:
                return Answer(400, body={"error": "invalid_grant"})
            person = ADA
        else:
            part = str(form.get("assertion")).split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
            self.scopes |= set(str(claims.get("scope")).split())
            person = claims.get("sub") or self.robots.get(claims["iss"].partition("@")[0], ADA)
            if claims.get("sub") and person not in self.delegated:
                return Answer(401, body={"error": "unauthorized_client"})
        names = (f"ya29.{person}~{number}" if number else f"ya29.{person}" for number in range(99))
        # One that is no longer taken is given again where nothing renews it.
        token = next((one for one in names if one not in self.revoked or not self.renews), "")
        told = {"access_token": token, "expires_in": 3600, "token_type": "Bearer"}
        return Answer(body=told)

    def _person(self, asked: Asked) -> str | None:
        token = asked.bearer
        if not token.startswith("ya29.") or token in self.revoked:
            return None
        return token.removeprefix("ya29.").partition("~")[0]

    def _about(self, asked: Asked, person: str) -> Any:
        if "fields" not in asked.query:
            return self._fail(400, "The 'fields' parameter is required for this method.")
        return {"kind": "drive#about", "user": {**_user(person), "me": True}}

    def _drives(self, asked: Asked, person: str) -> Any:
        found = [
            {"kind": "drive#drive", "id": one, "name": name}
            for one, name in self.files.drives.items()
            if one in self.files.items and self.files.role(person, self.files.items[one])
        ]
        return self._paged(asked, found, "drives", 10, "drive#driveList")

    def _one_drive(self, asked: Asked, person: str) -> Any:
        identifier = asked.params["driveId"]
        item = self.files.items.get(identifier)
        if item is None or identifier not in self.files.drives or not self._sees(person, item):
            return self._fail(404, f"Shared drive not found: {identifier}")
        return {"kind": "drive#drive", "id": identifier, "name": self.files.drives[identifier]}

    def _list(self, asked: Asked, person: str) -> Any:
        query, corpora = asked.query, asked.query.get("corpora", "user")
        drive = query.get("driveId")
        if (corpora == "drive") != bool(drive):
            return self._fail(400, "driveId and corpora=drive go together.")
        if drive and query.get("includeItemsFromAllDrives") != "true":
            return self._fail(400, "includeItemsFromAllDrives is needed.")
        if drive and not self._sees(person, self.files.items.get(drive)):
            return self._fail(404, f"Shared drive not found: {drive}")
        try:
            means = query_of(query["q"]) if "q" in query else lambda _: True
        except ValueError as error:
            return self._fail(400, f"Invalid Value: {error}")
        if self._listed_at != len(self.files.log):
            self._listed_at, self._listed, self._below = len(self.files.log), {}, {}
        key = (query.get("q"), drive, query.get("orderBy"), person)
        if key not in self._listed:
            self._listed[key] = list(self._found(query.get("q", ""), person, drive, means))
        found = self._listed[key]
        if query.get("orderBy") == "createdTime":
            found.sort(key=lambda one: str(one["createdTime"]))
        answer = self._paged(asked, found, "files", 100, "drive#fileList")
        if isinstance(answer, dict):
            answer["incompleteSearch"] = self.incomplete
        return answer

    def _found(
        self,
        query: str,
        person: str,
        drive: str | None,
        means: Callable[[Mapping[str, Any]], bool],
    ) -> Iterator[dict[str, Any]]:
        """Yields what a search finds: in a shared drive, or what is somebody's or shared so."""
        for item in self._candidates(query):
            is_in = item.drive is None or self._direct(person, item)
            if drive:
                is_in = item.drive == drive
            if item.parent is None or not is_in or not self.files.role(person, item):
                continue
            told = self._told(item, person)
            owners = ["me"] if item.owner == person else []
            asked_for = {**told, "owners": [item.owner, *owners]}
            if means({**asked_for, "sharedWithMe": "sharedWithMeTime" in told}):
                yield told

    def _candidates(self, query: str) -> Iterator[Item]:
        """Yields what a query may mean: only what is in its folders, where it names some."""
        folders = re.findall(r"'([^']*)' in parents", query)
        if not folders:
            yield from self.files.items.values()
            return
        if not self._below:
            for item in self.files.items.values():
                self._below.setdefault(item.parent, []).append(item)
        for folder in folders:
            yield from self._below.get(folder, ())

    def _get(self, asked: Asked, person: str) -> Any:
        identifier = asked.params["fileId"]
        item = self.files.items.get(self.files.root(person) if identifier == "root" else identifier)
        if item is None or not (self._sees(person, item) or _by_link(self.files, item)):
            return self._fail(404, f"File not found: {identifier}.")
        if item.drive and asked.query.get("supportsAllDrives") != "true":
            return self._fail(404, f"File not found: {identifier}.")
        return (
            self._media(asked, item)
            if asked.query.get("alt") == "media"
            else self._told(item, person)
        )

    def _media(self, asked: Asked, item: Item) -> Answer:
        reason = self.refusing.get(item.id)
        if reason == "cannotDownloadAbusiveFile" and asked.query.get("acknowledgeAbuse") == "true":
            reason = None
        if item.mime.startswith(APPS):
            reason = "fileNotDownloadable"
        if reason:
            return self._fail(403, "This file cannot be downloaded.", reason)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", asked.headers.get("range", ""))
        data = item.data
        kind = {"Content-Type": item.mime}
        if wanted is None:
            return Answer(200, kind, data)
        first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
        if first >= len(data):
            return Answer(416, {"Content-Range": f"bytes */{len(data)}"}, b"")
        told = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
        return Answer(206, {**kind, **told}, data[first : last + 1])

    def _export(self, asked: Asked, person: str) -> Any:
        item = self.files.items.get(asked.params["fileId"])
        if item is None or not self._sees(person, item):
            return self._fail(404, f"File not found: {asked.params['fileId']}.")
        if reason := self.refusing.get(item.id):
            return self._fail(403, "This file cannot be exported.", reason)
        data = item.exports.get(asked.query["mimeType"])
        if data is None:
            return self._fail(400, "The requested conversion is not supported.", "badRequest")
        if len(data) > EXPORT_LIMIT:
            return self._fail(
                403, "This file is too large to be exported.", "exportSizeLimitExceeded"
            )
        return Answer(200, {"Content-Type": asked.query["mimeType"]}, data)

    def _editor(self, asked: Asked, person: str) -> Any:
        kind = "sheets" if "spreadsheetId" in asked.params else "slides"
        name = {"sheets": "spreadsheetId", "slides": "presentationId"}[kind]
        if kind in self.disabled:
            why = {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "SERVICE_DISABLED",
                "domain": "googleapis.com",
                "metadata": {"service": f"{kind}.googleapis.com"},
            }
            message = f"Google {kind.title()} API has not been used in project 1 before"
            told = {"code": 403, "message": message, "status": "PERMISSION_DENIED"}
            return Answer(403, body={"error": {**told, "details": [why]}})
        item = self.files.items.get(asked.params[name])
        if item is None or item.content is None or not self._sees(person, item):
            told = {"code": 404, "message": "Requested entity was not found."}
            return Answer(404, body={"error": {**told, "status": "NOT_FOUND"}})
        return {name: item.id, **item.content}

    def _comments(self, asked: Asked, person: str) -> Any:
        item = self.files.items.get(asked.params["fileId"])
        if "fields" not in asked.query:
            return self._fail(400, "The 'fields' parameter is required for this method.")
        if item is None or not self._sees(person, item):
            return self._fail(404, f"File not found: {asked.params['fileId']}.")
        if self.refusing.get(item.id) == "comments":
            return self._fail(403, "The user does not have sufficient permissions for this file.")
        found = [one for one in item.comments if not one["deleted"]]
        return self._paged(asked, found, "comments", 20, "drive#commentList", most=100)

    def _permissions(self, asked: Asked, person: str) -> Any:
        item = self.files.items.get(asked.params["fileId"])
        if item is None or not self._sees(person, item):
            return self._fail(404, f"File not found: {asked.params['fileId']}.")
        if not item.drive and self.files.role(person, item) not in SHARES:
            return self._fail(403, "The user does not have sufficient permissions for this file.")
        found = [
            {**one, "kind": "drive#permission"}
            if not item.drive
            else {
                **one,
                "kind": "drive#permission",
                "permissionDetails": [
                    {
                        "permissionType": "member" if one not in item.own else "file",
                        "role": one["role"],
                        "inherited": one not in item.own,
                    }
                ],
            }
            for one in self.files.permissions(item)
        ]
        return self._paged(asked, found, "permissions", 100, "drive#permissionList", most=100)

    def _start(self, asked: Asked, person: str) -> Any:
        drive = asked.query.get("driveId")
        if drive and not self._sees(person, self.files.items.get(drive)):
            return self._fail(404, f"Shared drive not found: {drive}")
        token = str(len(self.files.log))
        return {"kind": "drive#startPageToken", "startPageToken": token}

    def _changes(self, asked: Asked, person: str) -> Any:
        query, drive = asked.query, asked.query.get("driveId")
        if drive and not self._sees(person, self.files.items.get(drive)):
            return self._fail(404, f"Shared drive not found: {drive}", "teamDriveNotFound")
        if not query["pageToken"].isdigit():
            return self._fail(400, "Invalid Value", "invalid")
        start = int(query["pageToken"])
        if start < self.expired:
            return self._fail(self.expired_status, f"Page token not found: {start}")
        last: dict[tuple[str, bool], int] = {}
        with_drives = query.get("includeItemsFromAllDrives") == "true"
        for entry in self.files.log[start:]:
            is_ours = person in entry.seen_by and (with_drives or entry.drive is None)
            if (entry.drive == drive and not entry.is_drive) if drive else is_ours:
                last.pop((entry.file, entry.is_drive), None)
                last[entry.file, entry.is_drive] = entry.number
        count = int(query.get("pageSize", "100"))
        shown = list(last.items())[:count]
        told = {
            "kind": "drive#changeList",
            "changes": [self._change(file, is_drive, person) for (file, is_drive), _ in shown],
        }
        if len(last) > count:
            return {**told, "nextPageToken": str(shown[-1][1])}
        return {**told, "newStartPageToken": str(len(self.files.log))}

    def _change(self, identifier: str, is_drive: bool, person: str) -> dict[str, Any]:
        item = self.files.items.get(identifier)
        is_there = item is not None and self._sees(person, item)
        told: dict[str, Any] = {"kind": "drive#change", "removed": not is_there}
        told["time"] = self.files.now.strftime("%Y-%m-%dT%H:%M:%S.000Z")
        if is_drive:
            return {**told, "changeType": "drive", "driveId": identifier}
        told |= {"changeType": "file", "fileId": identifier}
        return {**told, "file": self._told(item, person)} if item and is_there else told

    def _told(self, item: Item, person: str) -> dict[str, Any]:
        """Returns the resource of a file, as somebody sees it."""
        files = self.files
        above = files.items.get(item.parent or "")
        role = files.role(person, item)
        told: dict[str, Any] = {
            "kind": "drive#file",
            "id": item.id,
            "name": item.name,
            "mimeType": item.mime,
            "createdTime": item.created,
            "modifiedTime": item.modified,
            "version": str(item.version),
            "trashed": files.is_trashed(item),
            "explicitlyTrashed": item.trashed,
            "starred": False,
            "webViewLink": f"https://drive.google.com/file/d/{item.id}/view",
            "lastModifyingUser": _user(item.owner or ADA),
            "capabilities": {"canDownload": item.id not in self.refusing, "canComment": True},
            **item.more,
        }
        if above is not None and files.role(person, above):
            told["parents"] = [above.id]
        if item.drive:
            told |= {"driveId": item.drive, "hasAugmentedPermissions": bool(item.own)}
        else:
            told |= {"owners": [_user(item.owner)], "ownedByMe": item.owner == person}
            told["shared"] = len(files.permissions(item)) > 1
            if role in SHARES:
                told["permissions"] = [
                    {**one, "kind": "drive#permission"} for one in files.permissions(item)
                ]
        if item.limited:
            told["inheritedPermissionsDisabled"] = True
        if self._direct(person, item) and item.owner != person:
            told["sharedWithMeTime"] = item.modified
        if not item.mime.startswith(APPS):
            digest = hashlib.md5(item.data).hexdigest()
            told |= {"size": str(len(item.data)), "md5Checksum": digest}
            told["sha256Checksum"] = hashlib.sha256(item.data).hexdigest()
            told["headRevisionId"] = f"rev{digest[:8]}"
        elif item.exports and "text/markdown" in item.exports:
            link = f"{self.url}/feeds/export?id={item.id}&exportFormat=markdown"
            told["exportLinks"] = {"text/markdown": link}
        if item.mime == FOLDER:
            told.pop("exportLinks", None)
        return told

    def _direct(self, person: str, item: Item) -> bool:
        return any(self.files._means(one, person) for one in item.own)

    def _sees(self, person: str, item: Item | None) -> bool:
        return item is not None and bool(self.files.role(person, item))

    def _paged(
        self, asked: Asked, found: list[Any], name: str, usual: int, kind: str, most: int = 1000
    ) -> Any:
        size = int(asked.query.get("pageSize", usual))
        if size > most:
            return self._fail(400, f"Invalid value '{size}' for pageSize.")
        start = int(asked.query.get("pageToken") or "0")
        told: dict[str, Any] = {"kind": kind, name: found[start : start + size]}
        if start + size < len(found):
            told["nextPageToken"] = str(start + size)
        return told

    def _fail(self, status: int, message: str, reason: str | None = None) -> Answer:
        reason = reason or _REASONS.get(status, "backendError")
        one = {"domain": "global", "reason": reason, "message": message}
        return Answer(status, body={"error": {"code": status, "message": message, "errors": [one]}})


def _by_link(files: Files, item: Item) -> bool:
    return any(one["type"] == "anyone" for one in files.permissions(item))


def _user(address: str) -> dict[str, Any]:
    return {
        "kind": "drive#user",
        "displayName": address.partition("@")[0].title(),
        "emailAddress": address,
        "permissionId": may(address)["id"],
        "me": False,
    }
