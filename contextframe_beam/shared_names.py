"""Names that readers and the commit share.

They stand by themselves, because readers do without Lance: it takes its time to load, and warns of
the forks that workers are.
"""

from __future__ import annotations

#: Arguments of `sync_documents` that only choose less of a source: they are no part of its
#: identity. In the release 0.1 they were, so that each choice had an id and a state of its own.
NARROWING = frozenset(
    {
        "limit",
        "max_documents",
        "max_items",
        "max_pages",
        "max_records",
        "max_results",
        "only",
        "since",
        "until",
    }
)

#: The name, in the state of a partition that is a slice of time of another one, under which it says
#: so: `of` which, `from` when it begins, and `last` on the newest one. They become one state when
#: the newest one is there: that of the last of them that reached anything.
SLICE = "slice_of_time"
