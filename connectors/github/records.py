"""What items of GitHub become: records, with the ids and the metadata of each kind.

An item is what GitHub's API gave, with `_kind` and `_repository` beside it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from contextframe_beam.connectors.attachments import media_type
from contextframe_beam.connectors.github.text import relationships
from contextframe_beam.connectors.page import Place
from contextframe_beam.errors import RecordError
from contextframe_beam.frames.record import Deletion, FrameRecord
from contextframe_beam.frames.values import is_unicode


@dataclass(frozen=True)
class GitFile:
    """A file of a repository that needs no parser.

    Attributes:
        text: Its text.
        data: Its bytes, where they are kept.
        lfs: Where Git LFS keeps its content: `oid` and `size`; empty for other files.
    """

    text: str = ""
    data: bytes | None = None
    lfs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Of:
    """The repository of an item.

    Attributes:
        number: Its id, which stays when it is renamed.
        name: `owner/name`.
        url: Its address.
        numbers: The numbers of all repositories that are read, by their names in small letters.
    """

    number: int
    name: str
    url: str
    branch: str
    topics: list[str]
    numbers: Mapping[str, int]

    @classmethod
    def item(cls, item: Mapping[str, Any]) -> _Of:
        told = item.get("_repository")
        if not isinstance(told, Mapping) or not isinstance(told.get("id"), int):
            raise RecordError("the item has no _repository; give one that this connector has read")
        name = _text(told.get("name"))
        return cls(
            told["id"],
            name,
            _text(told.get("url")) or f"https://github.com/{name}",
            _text(told.get("branch")),
            _texts(told.get("topics")),
            told["numbers"] if isinstance(told.get("numbers"), Mapping) else {},
        )

    @property
    def host(self) -> str:
        return self.url.split("/")[2] if self.url.count("/") > 2 else "github.com"

    def id_of(self, kind: str, number: Any) -> str:
        return f"github:{self.number}/{kind}/{number}"

    def related(self, text: Any, own: str, *parents: str) -> list[dict[str, Any]]:
        body = text if isinstance(text, str) else None
        return relationships(body, self.number, self.name, self.numbers, self.host, parents, own)


def record_of(item: Mapping[str, Any]) -> FrameRecord | Deletion:
    """Returns the record of an item, or the deletion of a file that is gone.

    Raises:
        RecordError: the item is not from this connector, or lacks what names it.
    """
    kind = item.get("_kind")
    made = _MADE.get(kind) if isinstance(kind, str) else None
    if made is None:
        raise RecordError(
            "the item has no _kind of GitHub's; give one that this connector has read"
        )
    return made(item, _Of.item(item))


def id_of_file(item: Mapping[str, Any]) -> str:
    """Returns the id of a file.

    Raises:
        RecordError: the item is not from this connector.
    """
    path = item.get("path")
    if not isinstance(path, str) or not path or not is_unicode(path):
        raise RecordError("the file has no path; give one that this connector has read")
    return _Of.item(item).id_of("file", path)


def place_of(item: Mapping[str, Any]) -> Place | None:
    """Returns the place of an item in lists that are read completely; None for other items."""
    made = _PLACES.get(str(item.get("_kind")))
    if made is None:
        return None
    name, number = made
    point = None if number is None else number(item)
    return Place(f"{_Of.item(item).number}/{name}", point)


def readers_of_repository(told: Mapping[str, Any]) -> list[str] | None:
    """Returns who may read a repository; None where GitHub does not say it.

    Args:
        told: The repository, as GitHub's API gives it.
    """
    private = told.get("private")
    if not isinstance(private, bool):
        return None
    return [f"github-repo:{told['id']}"] if private else ["anyone"]


def readers_of(item: Mapping[str, Any]) -> list[str] | None:
    """Returns who may read an item; None where that is unknown, as of drafts of releases."""
    told = item["_repository"].get("readers")
    is_draft = item.get("_kind") == "release" and item.get("draft") is True
    return None if is_draft or not isinstance(told, list) else told


def context_of(item: Mapping[str, Any]) -> str:
    """Returns what a file's record tells of its repository, which its content does not."""
    of = _Of.item(item)
    return "\n".join([of.name, of.url, of.branch, *sorted(of.topics)])


def _issue(item: Mapping[str, Any], of: _Of) -> FrameRecord:
    number = _number(item, "number")
    is_pull = item["_kind"] == "pull"
    pull = item.get("pull_request")
    merged = item.get("merged_at") or (pull.get("merged_at") if isinstance(pull, Mapping) else None)
    own = of.id_of("issue", number)
    told = {
        "title": _text(item.get("title")) or f"#{number}",
        "number": number,
        "status": "merged" if merged else _text(item.get("state")),
        "tags": _names(item.get("labels"), "name"),
        "assignees": _names(item.get("assignees"), "login"),
        "milestone": _at(item, "milestone", "title"),
        "closed_at": _text(item.get("closed_at")),
        "state_reason": _text(item.get("state_reason")),
    }
    if is_pull:
        told["merged_at"] = _text(merged)
        told["draft"] = item.get("draft") is True or None
        told["head"], told["base"] = _at(item, "head", "label"), _at(item, "base", "ref")
        told["reviewers"] = _names(item.get("requested_reviewers"), "login")
    return _record(item, of, own, of.related(item.get("body"), own), told)


def _comment(item: Mapping[str, Any], of: _Of) -> FrameRecord:
    own = of.id_of("comment", _number(item, "id"))
    issue = _last_number(item.get("issue_url"))
    parents = [of.id_of("issue", issue)] if issue else []
    return _record(item, of, own, of.related(item.get("body"), own, *parents))


def _review(item: Mapping[str, Any], of: _Of) -> FrameRecord:
    own = of.id_of("review", _number(item, "id"))
    pull = _last_number(item.get("pull_request_url"))
    parents = [of.id_of("issue", pull)] if pull else []
    told = {"status": _text(item.get("state")).lower()}
    made = _record(item, of, own, of.related(item.get("body"), own, *parents), told)
    made.timestamp = _text(item.get("submitted_at")) or None
    return made


def _review_comment(item: Mapping[str, Any], of: _Of) -> FrameRecord:
    own = of.id_of("review-comment", _number(item, "id"))
    before, pull = item.get("in_reply_to_id"), _last_number(item.get("pull_request_url"))
    parents = [of.id_of("review-comment", before)] if isinstance(before, int) else []
    parents = parents or ([of.id_of("issue", pull)] if pull else [])
    line = item.get("line")
    told = {
        "source_file": _text(item.get("path")),
        "line": line if isinstance(line, int) else None,
        "diff": _text(item.get("diff_hunk")),
    }
    return _record(item, of, own, of.related(item.get("body"), own, *parents), told)


def _release(item: Mapping[str, Any], of: _Of) -> FrameRecord:
    own = of.id_of("release", _number(item, "id"))
    tag = _text(item.get("tag_name"))
    told = {
        "title": _text(item.get("name")) or tag,
        "tag_name": tag,
        "status": "draft" if item.get("draft") is True else "published",
        "prerelease": item.get("prerelease") is True or None,
        "author": _at(item, "author", "login") or "ghost",
        "created_at": _text(item.get("published_at")) or _text(item.get("created_at")),
        "assets": _names(item.get("assets"), "browser_download_url"),
    }
    made = _record(item, of, own, of.related(item.get("body"), own), told)
    times = (item.get("updated_at"), item.get("published_at"), item.get("created_at"))
    made.timestamp = next((one for one in map(_text, times) if one), None)
    return made


def _discussion(item: Mapping[str, Any], of: _Of) -> FrameRecord:
    number = _number(item, "number")
    own = of.id_of("discussion", number)
    labels = item.get("labels")
    told = {
        "title": _text(item.get("title")) or f"#{number}",
        "number": number,
        "status": "closed" if item.get("closedAt") else "open",
        "answered": isinstance(item.get("answer"), Mapping) or None,
        "category": _at(item, "category", "name"),
        "tags": _names(labels.get("nodes") if isinstance(labels, Mapping) else None, "name"),
    }
    return _record(_as_rest(item), of, own, of.related(item.get("body"), own), told)


def _discussion_comment(item: Mapping[str, Any], of: _Of) -> FrameRecord:
    own = of.id_of("discussion-comment", _number(item, "databaseId"))
    before, number = item.get("_reply_to"), item.get("_discussion")
    parents = [of.id_of("discussion-comment", before)] if before else []
    parents = parents or [of.id_of("discussion", number)]
    told = {"answer": item.get("isAnswer") is True or None}
    return _record(_as_rest(item), of, own, of.related(item.get("body"), own, *parents), told)


def _commit(item: Mapping[str, Any], of: _Of) -> FrameRecord:
    sha, commit = _text(item.get("sha")), item.get("commit")
    if not sha:
        raise RecordError("the commit has no sha")
    commit = commit if isinstance(commit, Mapping) else {}
    message, own = _text(commit.get("message")), of.id_of("commit", sha)
    at = _at(commit, "committer", "date") or _at(commit, "author", "date")
    told = {
        "title": message.partition("\n")[0] or sha[:12],
        "author": _at(item, "author", "login") or _at(commit, "author", "name") or "ghost",
        "created_at": at,
    }
    # `parents` of a commit are commits, and its text has no `body`.
    values = {**item, "body": message, "updated_at": at}
    return _record(values, of, own, of.related(message, own), told)


def _file(item: Mapping[str, Any], of: _Of) -> FrameRecord:
    own, path = id_of_file(item), str(item["path"])
    name = path.rpartition("/")[2]
    document = getattr(item, "document", None)
    if document is None:
        raise RecordError(f"{path} was not read; a run reads files before it maps them")
    size = item.get("size")
    told: dict[str, Any] = {
        "title": name,
        "uri": f"{of.url}/blob/{quote(of.branch)}/{quote(path)}",
        "source_file": path,
        "source_type": os.path.splitext(name)[1].lower().removeprefix("."),
        "file_size": size if isinstance(size, int) else None,
        "tags": of.topics,
        "sha": _text(item.get("sha")),
    }
    data = None
    if isinstance(document, GitFile):
        data = document.data
        if document.lfs:
            told["lfs"] = document.lfs
    else:
        stated = {key: one for key, one in document.metadata.items() if key != "attachments"}
        told["properties"] = stated
        told["title"] = document.title or name
    metadata = {**_common(item, of), **_given(told)}
    metadata.pop("author", None)
    return FrameRecord(
        document.text,
        metadata,
        "document",
        own,
        raw_data=data,
        raw_data_type=None if data is None else media_type(name),
        place=place_of(item),
        readers=readers_of(item),
    )


def _wiki(item: Mapping[str, Any], of: _Of) -> FrameRecord:
    path, text = _text(item.get("_path")), _text(item.get("body"))
    if not path:
        raise RecordError("the page of the wiki has no path")
    own, page = of.id_of("wiki", path), os.path.splitext(path.rpartition("/")[2])[0]
    told = {
        "title": page.replace("-", " "),
        "uri": f"{of.url}/wiki/{quote(page)}",
        "source_file": path,
    }
    metadata = {**_common(item, of), **_given(told)}
    metadata.pop("author", None)
    if related := of.related(text, own):
        metadata["relationships"] = related
    place, readers = place_of(item), readers_of(item)
    return FrameRecord(text, metadata, "document", own, place=place, readers=readers)


def _gone(item: Mapping[str, Any], of: _Of) -> Deletion:
    return Deletion(of.id_of("file", _text(item.get("_path"))))


_MADE: dict[str, Callable[[Mapping[str, Any], _Of], FrameRecord | Deletion]] = {
    "issue": _issue,
    "pull": _issue,
    "comment": _comment,
    "review": _review,
    "review-comment": _review_comment,
    "release": _release,
    "discussion": _discussion,
    "discussion-comment": _discussion_comment,
    "commit": _commit,
    "file": _file,
    "wiki": _wiki,
    "gone": _gone,
}


#: The lists that are read completely, or completely for a number: of a pull request, a discussion.
_PLACES: dict[str, tuple[str, Callable[[Mapping[str, Any]], int | None] | None]] = {
    "file": ("files", None),
    "wiki": ("wiki", None),
    "release": ("releases", None),
    "review": ("reviews", lambda item: _last_number(item.get("pull_request_url"))),
    "discussion-comment": ("discussion-comments", lambda item: item.get("_discussion")),
}


def _record(
    item: Mapping[str, Any],
    of: _Of,
    own: str,
    related: list[dict[str, Any]],
    told: Mapping[str, Any] | None = None,
) -> FrameRecord:
    metadata = {**_common(item, of), **_given(told or {})}
    if related:
        metadata["relationships"] = related
    changed = _text(item.get("updated_at")) or _text(item.get("created_at"))
    return FrameRecord(
        _with_comments(item),
        metadata,
        "document",
        own,
        changed or None,
        place=place_of(item),
        readers=readers_of(item),
    )


def _with_comments(item: Mapping[str, Any]) -> str:
    """Returns the text of an item, with the comments that were put into it."""
    texts = [_text(item.get("body"))]
    comments = item.get("_comments")
    for one in comments if isinstance(comments, list) else ():
        told = _as_rest(one) if "createdAt" in one else one
        who, at = _at(told, "user", "login") or "ghost", _text(told.get("created_at"))
        texts.append(f"---\n\n**@{who}**, {at}:\n\n{_text(told.get('body'))}")
    return "\n\n".join(one for one in texts if one)


def _common(item: Mapping[str, Any], of: _Of) -> dict[str, Any]:
    # The account of a person who left GitHub is null.
    told = {
        "author": _at(item, "user", "login") or "ghost",
        "uri": _text(item.get("html_url")),
        "created_at": _text(item.get("created_at")),
        "collection": of.name,
        "collection_id": str(of.number),
        "source": "github",
        "kind": item["_kind"],
    }
    return _given(told)


def _as_rest(node: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a node of GraphQL under the names that REST has for the same."""
    return {
        **node,
        "user": node.get("author"),
        "html_url": node.get("url"),
        "created_at": node.get("createdAt"),
        "updated_at": node.get("updatedAt"),
    }


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in values.items() if one not in (None, "", [], {})}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _at(item: Mapping[str, Any], name: str, field: str) -> str:
    inner = item.get(name)
    return _text(inner.get(field)) if isinstance(inner, Mapping) else ""


def _names(values: Any, field: str) -> list[str]:
    if not isinstance(values, list):
        return []
    # A label may be its name alone.
    told = [one.get(field) if isinstance(one, Mapping) else one for one in values]
    return [one for one in told if isinstance(one, str) and one]


def _number(item: Mapping[str, Any], name: str) -> int:
    value = item.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise RecordError(f"the {item['_kind']} has no {name}, so it has no id")
    return value


def _last_number(url: Any) -> int | None:
    last = _text(url).rpartition("/")[2]
    return int(last) if last.isascii() and last.isdigit() else None
