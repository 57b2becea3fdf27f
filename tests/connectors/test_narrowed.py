"""What only chooses less of a source is no part of it: its documents are those of the full run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.connectors import (
    BaseConnector,
    IncrementalConnector,
    Page,
    PaginatedConnector,
    Partition,
)
from contextframe_beam.connectors.api import APIConnector
from contextframe_beam.errors import TooManyDeletes
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.store.address import Address
from contextframe_beam.store.files import open_dataset
from contextframe_beam.store.state import read_states
from tests.support.cli_helpers import cli
from tests.support.http_fixture import HttpServer

DATA = Path(__file__).parents[1] / "data"
CHANGING = {"path": "changes", "incremental": {"field": "updated_at", "param": "since"}}


def crm(server: HttpServer, things: int = 5, others: int = 5) -> APIConnector:
    """Returns an API of two resources; only the things can be asked for what changed."""
    return APIConnector(
        f"{server.url}/api",
        name="crm",
        retries=0,
        resources=[
            {"name": "things", "params": {"n": things}, "paginator": "page", **CHANGING},
            {"name": "others", "path": "pages", "params": {"n": others}, "paginator": "page"},
        ],
    )


def into(kb: Path, connector: BaseConnector, mode: str = "upsert", **reading: Any) -> Any:
    embed_dim = None if kb.exists() else 4
    return ingest(connector, str(kb), mode=mode, embed_dim=embed_dim, sync_kwargs=reading)


def ids_in(kb: Path) -> list[str]:
    return sorted(str(one.unique_id).rpartition(":")[2] for one in FrameDataset.open(str(kb)))


def ids(things: int, others: int) -> list[str]:
    return [f"others#{n}" for n in range(others)] + [f"things#{n}" for n in range(things)]


def states_in(kb: Path) -> dict[str, Any]:
    """Returns what each source has reached, by its id."""
    states = read_states(open_dataset(Address(str(kb))))
    return {source: dict(state.partitions) for source, state in states.items()}


def since_of(server: HttpServer) -> set[str | None]:
    return {dict(parse_qsl(one["query"])).get("since") for one in server.requests("/api/changes")}


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    return tmp_path / "kb.lance"


# One source, whatever is chosen of it.


class Wiki(BaseConnector):
    """A list of pages, of which less can be asked for."""

    identity_args = ()

    def __init__(self, pages: tuple[str, ...] = ("a", "b", "c")) -> None:
        super().__init__()
        self.pages = pages

    def sync_documents(
        self, limit: int | None = None, since: str | None = None, space: str = "all"
    ) -> list[dict[str, Any]]:
        return [{"id": page} for page in self.pages[:limit]]

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return FrameRecord(f"text of {item['id']}", unique_id=f"wiki:{item['id']}")


@pytest.mark.parametrize(
    "chosen", [{"limit": 2}, {"since": "2026-01-01"}, {"limit": 1, "since": "2026-01-01"}]
)
def test_a_connector_of_ones_own_is_the_same_source(chosen):
    assert Wiki().source_id(chosen) == Wiki().source_id()
    assert Wiki().source_id({**chosen, "space": "x"}) == Wiki().source_id({"space": "x"})
    assert Wiki().source_id({"space": "x"}) != Wiki().source_id()


@pytest.mark.parametrize(
    "chosen", [{"only": ["things"]}, {"max_items": 3}, {"max_pages": 1}, {"only": None}]
)
def test_an_api_is_the_same_source(server, chosen):
    assert crm(server).source_id(chosen) == crm(server).source_id()
    endpoint = {"endpoint": "/b"}
    assert crm(server).source_id({**endpoint, **chosen}) == crm(server).source_id(endpoint)


@pytest.mark.sample
@pytest.mark.parametrize(
    "chosen",
    [{"only": ["things"]}, {"only": ["others"]}, {"max_items": 2}, {"max_pages": 1}],
    ids=["one resource", "the other", "items", "pages"],
)
def test_a_full_mirror_deletes_what_a_narrowed_run_brought_and_is_gone(server, kb, chosen):
    into(kb, crm(server), **chosen)
    receipt = into(kb, crm(server, things=1, others=1), mode="mirror")
    assert ids_in(kb) == ids(1, 1) and receipt.rows_deleted > 0
    assert list(states_in(kb)) == [crm(server).source_id()]


@pytest.mark.parametrize(
    ("chosen", "why"),
    [({"only": ["things"]}, "only (things)"), ({"max_items": 2}, "max_items (2)")],
)
def test_a_narrowed_mirror_deletes_nothing(server, kb, chosen, why):
    into(kb, crm(server))
    receipt = into(kb, crm(server, things=1, others=1), mode="mirror", **chosen)
    assert ids_in(kb) == ids(5, 5) and why in receipt.kept


@pytest.mark.sample(2)
@pytest.mark.parametrize("chosen", [{"only": None}, {"only": []}, {"max_items": None}], ids=str)
def test_what_chooses_nothing_narrows_nothing(server, kb, chosen):
    into(kb, crm(server))
    assert into(kb, crm(server, things=1), mode="mirror", **chosen).rows_deleted == 4


def test_a_narrowed_mirror_of_ones_own_deletes_nothing_and_the_full_one_does(kb):
    into(kb, Wiki())
    assert "limit (1)" in into(kb, Wiki(("a", "b")), mode="mirror", limit=1).kept
    assert ids_in(kb) == ["a", "b", "c"]
    assert into(kb, Wiki(("a", "b")), mode="mirror").rows_deleted == 1


def test_options_of_the_command_line_are_no_other_source(server, tmp_path, kb):
    config = tmp_path / "crm.yaml"
    config.write_text(
        f"base_url: {server.url}/api\nname: crm\nresources:\n"
        "- {name: things, path: pages, params: {n: 5}, paginator: page}\n"
        "- {name: others, path: pages, params: {n: 5}, paginator: page}\n"
    )
    run = ("ingest", "api", "--config", config, "--to", kb)
    assert cli(*run, "--only", "things", "--max-items", "3").code == 0
    assert cli(*run, "--json", "--mode", "mirror").json["rows_deleted"] == 0
    assert ids_in(kb) == ids(5, 5) and len(states_in(kb)) == 1


# States.


def test_a_narrowed_run_goes_on_where_the_full_one_ended_and_the_other_way_round(server, kb):
    into(kb, crm(server))
    server.reset()
    into(kb, crm(server, things=7), only=["things"])
    assert since_of(server) == {"2026-01-05T00:00:00Z"}
    server.reset()
    into(kb, crm(server, things=7))
    assert since_of(server) == {"2026-01-07T00:00:00Z"}


def test_a_run_of_one_resource_leaves_the_states_of_the_others(server, kb):
    into(kb, crm(server))
    into(kb, crm(server), only=["others"])
    assert states_in(kb)[crm(server).source_id()] == {"things": {"cursor": "2026-01-05T00:00:00Z"}}


@pytest.mark.parametrize("limit", [{"max_items": 2}, {"max_pages": 1, "max_items": 3}])
def test_a_trial_moves_no_state(server, kb, limit):
    into(kb, crm(server), **limit)
    assert states_in(kb)[crm(server).source_id()] == {}
    server.reset()
    into(kb, crm(server))
    assert since_of(server) == {None} and ids_in(kb) == ids(5, 5)


class Changing(IncrementalConnector):
    identity_args = ()

    def _full_sync(self, limit: int | None = None) -> list[dict[str, Any]]:
        return [{"id": name} for name in "abc"[:limit]]

    def _incremental_sync(self, since: str, limit: int | None = None) -> list[dict[str, Any]]:
        return []

    map_to_frame_record = Wiki.map_to_frame_record


class Parts(PaginatedConnector):
    identity_args = ()

    def partitions(self, limit: int | None = None) -> list[Partition]:
        return [Partition(name, {"limit": limit}) for name in "ab"]

    def fetch_page(self, partition: Partition, cursor: Any) -> Page:
        items = [{"id": f"{partition.id}{n}"} for n in range(3)][: partition.params["limit"]]
        return Page(items, state={"read": len(items)})

    map_to_frame_record = Wiki.map_to_frame_record


@pytest.mark.parametrize(("kind", "all_of_it"), [(Changing, 3), (Parts, 6)])
def test_a_trial_of_ones_own_connector_moves_no_state(kb, kind, all_of_it):
    into(kb, kind(), limit=1)
    assert states_in(kb)[kind().source_id()] == {}
    into(kb, kind())
    assert len(ids_in(kb)) == all_of_it and states_in(kb)[kind().source_id()] != {}


def test_a_trial_that_commits_by_parts_is_another_backfill(server, kb):
    ends: list[str] = []

    class Ending(APIConnector):
        def fetch_page(self, partition: Partition, cursor: Any) -> Page:
            if partition.id == "others" and not ends:
                ends.append(partition.id)
                raise ValueError("the trial ends here")
            return super().fetch_page(partition, cursor)

    config = crm(server).config.model_dump(exclude_unset=True, by_alias=True)
    connector = Ending(config=config)
    how = {"commit_every": 1, "embed_dim": 4}
    with pytest.raises(Exception, match="the trial ends here"):
        ingest(connector, str(kb), **how, sync_kwargs={"max_items": 2})
    assert ids_in(kb) == ["things#0", "things#1"]
    ingest(connector, str(kb), commit_every=1)
    assert ids_in(kb) == ids(5, 5)


# What the release 0.1 wrote, in which each choice was a source of its own.


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    to = tmp_path / "kb.lance"
    shutil.copytree(DATA / "release-0.1-narrowed.lance", to)
    return to


@pytest.mark.parametrize("chosen", [{}, {"only": ["things"]}], ids=["all", "the same"])
def test_a_dataset_of_choices_goes_on_where_they_ended(server, earlier, chosen):
    into(earlier, crm(server, things=7), **chosen)
    assert since_of(server) == {"2026-01-05T00:00:00Z"}
    assert ids_in(earlier) == ids(7, 2 if chosen else 5)
    assert states_in(earlier)[crm(server).source_id()] == {
        "things": {"cursor": "2026-01-07T00:00:00Z"}
    }


def test_its_state_is_taken_over_once(server, earlier):
    into(earlier, crm(server), only=["others"])
    own = crm(server).source_id()
    assert states_in(earlier).pop(own) == {"things": {"cursor": "2026-01-05T00:00:00Z"}}
    assert [one for source, one in states_in(earlier).items() if source != own] == [{}, {}]


@pytest.mark.parametrize("first", ["mirror", "upsert"])
def test_a_full_mirror_deletes_what_its_choices_brought_and_is_gone(server, earlier, first):
    into(earlier, crm(server, things=4, others=1), mode=first)
    assert ids_in(earlier) == (ids(4, 1) if first == "mirror" else ids(5, 2))
    into(earlier, crm(server, things=4, others=1), mode="mirror")
    assert ids_in(earlier) == ids(4, 1)


def test_what_its_choices_brought_is_counted_as_the_source_s_own_before_it_is_deleted(
    server, earlier
):
    receipt = into(earlier, crm(server, things=5, others=0), mode="mirror")
    assert receipt.rows_deleted == 2 and ids_in(earlier) == ids(5, 0)
    with pytest.raises(TooManyDeletes, match="5 of its documents"):
        into(earlier, crm(server, things=0, others=0), mode="mirror")


def test_a_source_of_another_name_takes_nothing_over(server, earlier):
    other = APIConnector(f"{server.url}/api", name="erp", resources=[{"name": "pages"}])
    into(earlier, other, mode="mirror")
    assert ids(5, 2) == [one for one in ids_in(earlier) if not one.startswith("pages")]
