"""What is asked of Linear: a query for each list, and one for the rest of each list inside of it.

A query may cost 10,000 points: an object 1, a field 0.1, times `first` of each list around it,
which counts 50 where it is left out. So each list says how many it asks for. A list inside of
another one asks for few, and is followed to its end by a query of its own.

Source of names and types: the schema of Linear's SDK, release 88.3.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PAGE = "pageInfo { hasNextPage endCursor }"

#: The largest page that Linear gives.
LARGEST_PAGE = 250

#: Of so many comments is asked at once what they are on.
OWNERS_AT_ONCE = 50

_PERSON = "{ id name }"
_AUTHOR = f"user {_PERSON} botActor {{ name userDisplayName }} externalUser {_PERSON}"
_TIMES = "createdAt updatedAt archivedAt"
_TEAMS = f"teams(first: 5) {{ {PAGE} nodes {{ id }} }}"
_SHARED = "sharedAccess { sharedWithUsers { id email } }"

# What has to be known of what something lies in, to tell whether it is read and who may read it.
_IN_ISSUE = f"""issue {{
  id identifier title archivedAt trashed
  team {{ id key name }} project {{ id name }} state {{ name type }} {_SHARED}
}}"""
_IN_PROJECT = f"project {{ id name archivedAt trashed {_TEAMS} }}"
_IN_INITIATIVE = "initiative { id name archivedAt trashed visibility leadTeam { id } }"

_IN_ANY = f"{_IN_ISSUE} {_IN_PROJECT} {_IN_INITIATIVE}"

_COMMENT = f"""id body url {_TIMES} editedAt resolvedAt quotedText parentId {_AUTHOR}"""
_COMMENTS = f"comments(first: 20, includeArchived: true) {{ {PAGE} nodes {{ {_COMMENT} }} }}"

_ISSUE = f"""id identifier previousIdentifiers title description url priority priorityLabel estimate
  dueDate {_TIMES} trashed completedAt canceledAt
  state {{ name type }} team {{ id key name }} project {{ id name }} projectMilestone {{ name }}
  cycle {{ number name }} parent {{ id }} assignee {_PERSON} {_SHARED}
  creator {_PERSON} botActor {{ name userDisplayName }} externalUserCreator {_PERSON}
  labels(first: 20) {{ {PAGE} nodes {{ name }} }}
  relations(first: 20) {{ {PAGE} nodes {{ type relatedIssue {{ id }} }} }}
  attachments(first: 20) {{ {PAGE} nodes {{ title subtitle url }} }}"""

_PROJECT = f"""id name description content url {_TIMES} trashed startDate targetDate completedAt
  canceledAt health priority priorityLabel status {{ name type }} creator {_PERSON} lead {_PERSON}
  teams(first: 20) {{ {PAGE} nodes {{ id key name }} }}
  labels(first: 20) {{ {PAGE} nodes {{ name }} }}
  initiatives(first: 10) {{ {PAGE} nodes {{ id }} }}
  externalLinks(first: 20) {{ {PAGE} nodes {{ label url }} }}"""

_UPDATE = f"id body url {_TIMES} editedAt health user {_PERSON}"

_DOCUMENT = f"""id title content url {_TIMES} trashed creator {_PERSON} updatedBy {_PERSON}
  team {{ id key name }} {_IN_ANY}"""

_INITIATIVE = f"""id name description content url {_TIMES} trashed targetDate startedAt completedAt
  health status visibility leadTeam {{ id key name }} parentInitiative {{ id }}
  creator {_PERSON} owner {_PERSON}
  links(first: 20) {{ {PAGE} nodes {{ label url }} }}"""

_IN_UPDATE = f"""projectUpdate {{ id archivedAt {_IN_PROJECT} }}
  initiativeUpdate {{ id archivedAt {_IN_INITIATIVE} }}"""
_IN_CONTENT = f"""documentContent {{
    {_IN_ANY} document {{ id title archivedAt trashed team {{ id key name }} {_IN_ANY} }}
  }}"""


@dataclass(frozen=True)
class Resource:
    """One of the lists that are read.

    Attributes:
        kind: What each of its items is.
        field: The list in the schema.
        nodes: The fields of an item.
        filter: The type of its filter.
        sorts: Whether it can be asked for those first that changed longest ago.
        share: How many of it are asked for at once, as a multiple of a page of issues, since they
            cost less.
    """

    kind: str
    field: str
    nodes: str
    filter: str
    sorts: bool = True
    share: int = 2

    def query(self, with_comments: bool = False) -> str:
        """Returns the query of a page.

        A list that cannot be sorted by the time of a change comes by the time of creation: what is
        edited while it is read stays where it is then, and is not missed.

        Args:
            with_comments: Whether each item comes with the comments on it.
        """
        order = "sort: [{updatedAt: {order: Ascending}}]" if self.sorts else "orderBy: createdAt"
        comments = _COMMENTS if with_comments and self.kind in COMMENTED else ""
        return f"""query(
  $first: Int!, $after: String, $archived: Boolean!, $filter: {self.filter}
) {{
  {self.field}(
    first: $first, after: $after, includeArchived: $archived, filter: $filter, {order}
  ) {{
    {PAGE} nodes {{ {self.nodes} {comments} }}
  }}
}}"""


#: What has comments in lists of their own.
COMMENTED = frozenset({"issue", "project", "project_update", "document", "initiative_update"})

#: The lists by the names that users give them.
RESOURCES: Mapping[str, Resource] = {
    "issues": Resource("issue", "issues", _ISSUE, "IssueFilter", share=1),
    "comments": Resource(
        "comment", "comments", f"{_COMMENT} {_IN_ISSUE}", "CommentFilter", sorts=False, share=4
    ),
    "projects": Resource("project", "projects", _PROJECT, "ProjectFilter", share=1),
    "project_updates": Resource(
        "project_update",
        "projectUpdates",
        f"{_UPDATE} {_IN_PROJECT}",
        "ProjectUpdateFilter",
        sorts=False,
    ),
    "documents": Resource("document", "documents", _DOCUMENT, "DocumentFilter"),
    "initiatives": Resource("initiative", "initiatives", _INITIATIVE, "InitiativeFilter"),
    "initiative_updates": Resource(
        "initiative_update",
        "initiativeUpdates",
        f"{_UPDATE} {_IN_INITIATIVE}",
        "InitiativeUpdateFilter",
        sorts=False,
    ),
}

#: The fields of an item whose value is another item with lists of its own.
KINDS = {
    "issue": "issue",
    "project": "project",
    "initiative": "initiative",
    "document": "document",
    "projectUpdate": "project_update",
    "initiativeUpdate": "initiative_update",
    "documentContent": "",
}

_ONE = {
    "issue": "issue",
    "project": "project",
    "initiative": "initiative",
    "document": "document",
    "project_update": "projectUpdate",
    "initiative_update": "initiativeUpdate",
}
_INNER = {
    "labels": "{ name }",
    "relations": "{ type relatedIssue { id } }",
    "attachments": "{ title subtitle url }",
    "comments": f"{{ {_COMMENT} }}",
    "teams": "{ id key name }",
    "initiatives": "{ id }",
    "externalLinks": "{ label url }",
    "links": "{ label url }",
}


def rest_query(kind: str, inner: str) -> tuple[str, str]:
    """Returns the query for the rest of a list in an item, and where the list is in its data.

    Args:
        kind: What the item is.
        inner: The field of the list.
    """
    archived = ", includeArchived: true" if inner == "comments" else ""
    query = f"""query($id: String!, $after: String) {{
  {_ONE[kind]}(id: $id) {{
    {inner}(first: 100, after: $after{archived}) {{ {PAGE} nodes {_INNER[inner]} }}
  }}
}}"""
    return query, f"{_ONE[kind]}.{inner}"


#: What comments are on that are on no issue. Most are, and the others cost seven times as much.
OWNERS = f"""query($ids: [ID!], $after: String) {{
  comments(
    first: {OWNERS_AT_ONCE}, after: $after, includeArchived: true, filter: {{id: {{in: $ids}}}}
  ) {{
    {PAGE} nodes {{ id {_IN_PROJECT} {_IN_INITIATIVE} {_IN_UPDATE} {_IN_CONTENT} }}
  }}
}}"""
VIEWER = "query { viewer { id name email } organization { id name urlKey } }"
TEAMS = f"""query($after: String) {{
  organization {{ id name urlKey }}
  teams(first: 100, after: $after, includeArchived: true) {{
    {PAGE} nodes {{ id key name visibility restrictedBy {{ id }} }}
  }}
}}"""
COUNTS = f"""query($after: String) {{
  teams(first: 100, after: $after, includeArchived: true) {{
    {PAGE} nodes {{ id issueCount(includeArchived: true) }}
  }}
}}"""
PEOPLE = f"""query($after: String) {{
  users(first: 100, after: $after, includeArchived: true, includeDisabled: true) {{
    {PAGE} nodes {{ id name displayName }}
  }}
}}"""
PROJECTS = f"""query($after: String, $filter: ProjectFilter) {{
  projects(first: 100, after: $after, includeArchived: true, filter: $filter) {{
    {PAGE} nodes {{ id name slugId }}
  }}
}}"""
ISSUE = "query($id: String!) { issue(id: $id) { id identifier } }"

#: How what an address leads to is found: by the number of an issue, else by the end of its address.
FOUND: Mapping[str, str] = {
    "issue": f"""query($after: String, $filter: IssueFilter) {{
  issues(first: 100, after: $after, includeArchived: true, filter: $filter) {{
    {PAGE} nodes {{ id identifier }}
  }}
}}""",
    **{
        kind: f"""query($after: String, $filter: {kind.capitalize()}Filter) {{
  {kind}s(first: 100, after: $after, includeArchived: true, filter: $filter) {{
    {PAGE} nodes {{ id slugId }}
  }}
}}"""
        for kind in ("project", "document", "initiative")
    },
}
