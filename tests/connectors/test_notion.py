"""The notion connector, against a world that is checked by what Notion publishes."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.files.item import FileItem
from contextframe_beam.connectors.look import look
from contextframe_beam.connectors.notion.connector import NotionConnector
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.connectors.testing import ConnectorTests, Status, Subject, run_checks
from contextframe_beam.errors import CommitError, ConfigError, ConnectorError
from contextframe_beam.frames.record import Deletion, FrameRecord
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.transforms.commit import CommitReceipt
from tests.support.pdf_files import pdf
from tests.worlds.clients import node
from tests.worlds.described import Answer, Window
from tests.worlds.notion_blocks import block, external, hosted, of_every_type, text, uid
from tests.worlds.notion_world import TOKEN, NotionWorld

HOUR = 3600


@pytest.fixture
def world() -> Iterator[NotionWorld]:
    with NotionWorld() as made:
        yield made
        assert made.problems == []


def connector(world: NotionWorld, **settings: Any) -> NotionConnector:
    """Returns a connector for a world that does not wait between requests."""
    return NotionConnector(
        **{"token": TOKEN, "base_url": world.url, "requests_per_second": 5000, **settings}
    )


def run(world: NotionWorld, to: Path, mode: str = "upsert", **settings: Any) -> CommitReceipt:
    full = settings.pop("full", False)
    deletes = settings.pop("max_deletes", "100%")
    return ingest(
        connector(world, **settings),
        str(to),
        mode=mode,
        full=full,
        max_deletes=deletes,
        embed_dim=2,
    )


def stored(to: Path) -> dict[str, FrameRecord]:
    """Returns the records of a dataset by their unique ids, without the kind of id."""
    return {str(one.unique_id).partition(":")[2]: one for one in FrameDataset.open(str(to))}


def record(world: NotionWorld, identifier: str, **settings: Any) -> FrameRecord:
    """Returns what becomes of one page, read outside of a run."""
    made = connector(world, **settings)
    made.authenticate()
    item = next(one for one in made.sync_documents() if one["path"] == f"page/{identifier}")
    found = made.map_to_frame_record(item)
    assert isinstance(found, FrameRecord)
    return found


def relationships(found: FrameRecord) -> list[tuple[str, str]]:
    return [
        (one["relationship_type"], one["target_id"].partition(":")[2])
        for one in found.metadata.get("relationships", ())
    ]


class TestARunWritesWhatChanged:
    """One workspace, run after run; each change reaches exactly its rows."""

    def test_from_the_first_run_to_a_mirror(self, world: NotionWorld, tmp_path: Path) -> None:
        to = tmp_path / "kb.lance"
        home = world.page("Handbook")
        chapter = world.page("Chapter", home, [block("paragraph", "One.")])
        world.add(home, block("toggle", "More", below=[block("paragraph", "Nested.")]))
        nested = world.below[world.below[home][0]][0]
        world.add(home, hosted("file", world.upload("notes.md", b"# Notes"), name="notes.md"))
        tasks = world.data_source("Tasks", home)
        row = world.page("Write", tasks)
        other = world.page("Read", tasks)
        first = world.comment(home, "Nice")
        world.now += HOUR

        assert run(world, to).rows_written == 7
        asked = len(world.served)

        again = run(world, to)
        assert (again.rows_written, again.partial) == (0, ())
        told = [one.asked.path.rpartition("/")[2] for one in world.served[asked:]]
        assert sorted(one for one in told if one != "me") == ["query", "search", "search"]

        world.edit_block(nested, "Nested and edited.")
        world.now += HOUR
        assert run(world, to).rows_written == 1
        assert "Nested and edited." in str(stored(to)[f"page/{home}"].text_content)

        world.edit(row, "Now.")
        late = world.page("New", tasks)
        world.now += HOUR
        assert run(world, to).rows_written == 2
        assert stored(to)[f"page/{late}"].metadata["collection"] == "Tasks"

        # What no edited time tells: a comment, and an edit of a block through the API.
        reply = world.comment(home, "Indeed", thread=first)
        world.edit_block(nested, "By a program.", by_api=True)
        world.now += HOUR
        assert run(world, to).rows_written == 0
        assert run(world, to, full=True).rows_written == 2
        assert relationships(stored(to)[f"comment/{reply}"]) == [("parent", f"comment/{first}")]

        # A query tells all rows edited since a time; a search proves nothing, but a mirror reads
        # all there is.
        for gone in (row, other, chapter):
            world.trash(gone)
        world.now += HOUR
        assert run(world, to).rows_deleted == 1
        mirror = run(world, to, mode="mirror")
        assert (mirror.rows_deleted, mirror.rows_written) == (2, 0)

        # Of a page that is read, all comments and files are known.
        world.comments[home].pop()
        world.edit(home, "Edited.")
        receipt = run(world, to)
        assert (receipt.rows_written, receipt.rows_deleted) == (1, 1)

        fresh = tmp_path / "fresh.lance"
        run(world, fresh, full=True)
        assert {k: v.text_content for k, v in stored(to).items()} == {
            k: v.text_content for k, v in stored(fresh).items()
        }
        assert {k: v.metadata for k, v in stored(to).items()} == {
            k: v.metadata for k, v in stored(fresh).items()
        }
        told = json.dumps([[r.metadata, r.text_content] for r in stored(to).values()])
        files = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
        for secret in (TOKEN, "X-Amz-Signature", "AKIAWORLD"):
            assert secret not in told and secret.encode() not in files

    def test_an_edit_in_the_minute_of_a_run_is_not_lost(
        self, world: NotionWorld, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        page = world.page("Page")
        world.edit(page, "One.", seconds=1)
        run(world, to)
        world.edit(page, "Two.", seconds=1)
        assert run(world, to).rows_written == 1
        world.now += HOUR
        # Once more, because nothing told that this minute was over; then never again.
        run(world, to)
        asked = world.sent(".*/children")
        assert run(world, to).rows_written == 0
        assert world.sent(".*/children") == asked
        assert stored(to)[f"page/{page}"].text_content == "One.\n\nTwo."

    def test_a_page_that_search_shows_late_is_read_in_a_later_run(
        self, world: NotionWorld, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        late, _ = world.page("Late"), world.page("Other")
        world.late.add(late)
        world.now += HOUR
        run(world, to)
        world.late.clear()
        assert run(world, to).rows_written == 1

    def test_known_pages_are_asked_for_where_that_is_wanted(
        self, world: NotionWorld, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        home, old, hidden = world.page("Home"), world.page("Old"), world.page("Hidden")
        row = world.page("Row", world.data_source("Tasks"))
        world.comment(old, "Nice")
        world.now += 3 * HOUR
        world.edit(home, "Now.")
        world.now += HOUR
        run(world, to, check_known=True)
        world.trash(old)
        world.hidden.add(hidden)
        assert run(world, to).rows_deleted == 0
        asked = len(world.served)
        receipt = run(world, to, check_known=True)
        # The comment goes with its page.
        assert (receipt.rows_deleted, receipt.rows_written) == (3, 0)
        single = [one for one in world.served[asked:] if one.asked.path.startswith("/v1/pages/")]
        assert len(single) == 4
        assert {f"page/{home}", f"page/{row}"} < set(stored(to))

    def test_what_is_in_the_trash_is_read_where_that_is_wanted(
        self, world: NotionWorld, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        row = world.page("Row", world.data_source("Tasks"), [block("paragraph", "Text.")])
        world.trash(row)
        run(world, to, trash=True)
        found = stored(to)[f"page/{row}"]
        assert (found.text_content, found.metadata["in_trash"]) == ("Text.", True)


class TestWhatIsRead:
    def test_a_page_of_250_blocks_in_five_levels_is_whole_and_in_order(
        self, world: NotionWorld
    ) -> None:
        deep = block("bulleted_list_item", "level 5")
        for level in (4, 3, 2, 1):
            deep = block("bulleted_list_item", f"level {level}", below=[deep])
        page = world.page(
            "Long",
            blocks=[
                *(block("paragraph", f"p{number}") for number in range(244)),
                deep,
                block("paragraph", "last"),
            ],
        )
        lines = str(record(world, page).text_content).split("\n")
        assert [one for one in lines if one and "level" not in one] == [
            *(f"p{number}" for number in range(244)),
            "last",
        ]
        assert [one for one in lines if "level" in one] == [
            f"{'  ' * (level - 1)}- level {level}" for level in range(1, 6)
        ]

    def test_each_type_of_block_is_in_the_golden_page(self, world: NotionWorld) -> None:
        chapter = world.page("Chapter")
        origin = world.add(chapter, block("synced_block", synced_from=None))[0]
        page = world.page("Page", blocks=of_every_type(chapter, uid(7), origin))
        golden = Path(__file__).parent.parent / "data" / "notion" / "page.md"
        assert record(world, page).text_content == golden.read_text(encoding="utf-8").rstrip("\n")

    def test_a_relation_of_60_entries_is_whole(self, world: NotionWorld) -> None:
        tasks = world.data_source("Tasks")
        others = [uid(0x1000 + number) for number in range(60)]
        told = {"id": "rel%3D", "type": "relation", "relation": [{"id": one} for one in others]}
        note = {"id": "note", "type": "rich_text", "rich_text": [text(f"{n} ") for n in range(40)]}
        row = world.page("Row", tasks, properties={"Others": told, "Note": note})
        found = record(world, row)
        assert found.metadata["properties"]["Others"] == [f"notion:page/{one}" for one in others]
        assert found.metadata["properties"]["Note"].split() == [str(n) for n in range(40)]
        assert len(relationships(found)) == 61

    def test_1200_rows_come_each_once_and_later_those_edited_since(
        self, world: NotionWorld
    ) -> None:
        tasks = world.data_source("Tasks")
        rows = [world.page(f"Row {number}", tasks) for number in range(1200)]
        made = connector(world)
        made.authenticate()
        pages = list(Source(made).pages())
        read = [item["path"] for page in pages for item in page.items if item["kind"] == "row"]
        assert sorted(read) == sorted(f"page/{one}" for one in rows)
        states = {page.partition: page.state for page in pages if page.state is not None}
        world.edit(rows[3], "Edited.", seconds=HOUR)
        later = Source(made, resume_from=states).pages()
        found = [i["path"] for page in later for i in page.items if i["kind"] == "row"]
        # 15 minutes are looked at again, and nothing that is older.
        assert f"page/{rows[3]}" in found and len(found) < 200

    def test_parents_are_found_through_blocks(self, world: NotionWorld) -> None:
        home = world.page("Home")
        column = world.add(home, block("toggle", "t", below=[block("toggle", "u")]))[0]
        inner = world.below[column][0]
        page = world.page("Inside", inner)
        assert relationships(record(world, page)) == [("parent", f"page/{home}")]

    def test_a_copy_refers_to_its_original_and_is_read_where_that_is_hidden(
        self, world: NotionWorld
    ) -> None:
        home, secret = world.page("Home"), world.page("Secret")
        shown = world.add(home, block("synced_block", synced_from=None))[0]
        hidden = world.add(secret, block("synced_block", synced_from=None))[0]
        world.hidden.add(secret)
        copies = [
            block(
                "synced_block",
                synced_from={"type": "block_id", "block_id": one},
                below=[block("paragraph", "copied")],
            )
            for one in (shown, hidden)
        ]
        found = record(world, world.page("Page", blocks=copies))
        bare = shown.replace("-", "")
        assert found.text_content == f"[Synced block](https://www.notion.so/{bare})\n\ncopied"
        assert relationships(found) == [("reference", f"page/{home}")]

    def test_blocks_that_notion_refuses_leave_the_rest_of_the_page(
        self, world: NotionWorld
    ) -> None:
        page = world.page("Page", blocks=[block("paragraph", f"p{n}") for n in range(150)])
        made = connector(world)
        made.authenticate()
        item = next(i for p in Source(made).pages() for i in p.items)
        refused = world._fail(400, "validation_error", "Block type ai_block is not supported")

        def refuse(asked: Any) -> bool:
            if "start_cursor" in asked.query:
                world.scripted.append(refused)
            return False

        world.closing = refuse
        found = made.map_to_frame_record(item)
        assert isinstance(found, FrameRecord) and found.unique_id == f"notion:page/{page}"
        assert str(found.text_content).endswith("p99\n\n\\[validation_error\\]")
        assert made.get_stats()["unknown_markup"] == 1

    def test_depth_has_a_limit_that_shows(self, world: NotionWorld) -> None:
        page = world.page("Deep", blocks=[block("toggle", "1", below=[block("toggle", "2")])])
        found = record(world, page, max_depth=1)
        assert found.text_content == "1\n\n\\[deeper blocks, left out\\]"

    def test_comments_stand_below_their_page_if_so_asked(self, world: NotionWorld) -> None:
        page = world.page("Page", blocks=[block("paragraph", "Text.")])
        world.comment(page, "Nice")
        world.comment(world.below[page][0], "On a block")
        inline = record(world, page, comments="inline", block_comments=True)
        assert inline.text_content == (
            "Text.\n\n## Comments\n\n- Bob, 2026-01-01T00:00: Nice\n- Bob, 2026-01-01T00:00: "
            "On a block"
        ).replace("Bob", "Ada")
        assert record(world, page, comments="none").text_content == "Text."

    def test_the_endpoint_for_markdown_is_one_request_a_page(self, world: NotionWorld) -> None:
        page = world.page("Page", blocks=[block("paragraph", "Text.")])
        assert record(world, page, markdown="endpoint", comments="none").text_content == "Text."
        assert world.sent(".*/children") == 0

    def test_a_published_page_may_be_read_by_anyone(self, world: NotionWorld) -> None:
        public = world.page("Public", public_url="https://acme.notion.site/Public")
        assert record(world, public).readers == ["anyone"]
        assert record(world, world.page("Inside")).readers is None

    def test_roots_and_what_is_left_out(self, world: NotionWorld) -> None:
        home, other = world.page("Home"), world.page("Other")
        inner = world.page("Inner", world.add(home, block("toggle", "t"))[0])
        archive = world.page("Archive 2020", home)
        world.page("Old", archive)
        tasks = world.data_source("Tasks", home)
        row = world.page("Row", tasks)
        world.page("Far row", world.data_source("Far", other))

        def read(**settings: Any) -> set[str]:
            made = connector(world, **settings)
            made.authenticate()
            pages = list(Source(made).pages())
            return {i["path"].partition("/")[2] for page in pages for i in page.items}

        address = f"https://www.notion.so/acme/Home-{home.replace('-', '')}?pvs=4"
        assert read(roots=[address], exclude=["archive*"]) == {home, inner, tasks, row}
        assert read(roots=[tasks]) == {tasks, row}
        assert read(roots=[home], exclude=[archive, tasks]) == {home, inner}
        assert read(resources=["rows"], roots=[home]) == {tasks, row}

    def test_pages_in_the_trash_are_deletions_unless_they_are_asked_for(
        self, world: NotionWorld
    ) -> None:
        page = world.page("Page")
        item = {"path": f"page/{page}", "kind": "gone"}
        assert connector(world).map_to_frame_record(item) == Deletion(f"notion:page/{page}")


class TestFiles:
    def test_a_pdf_becomes_text_and_an_image_is_named(
        self, world: NotionWorld, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        data = pdf(["Paper of the year"])
        signed = {"url": world.upload("a.md", b"# A"), "expiry_time": "2026-01-01T01:00:00.000Z"}
        told = {
            "id": "fil",
            "type": "files",
            "files": [
                {"name": "a.md", "type": "file", "file": signed},
                {"name": "b", "type": "external", "external": {"url": "https://example.test/b"}},
            ],
        }
        page = world.page(
            "Page",
            blocks=[
                hosted("pdf", world.upload("paper.pdf", data)),
                hosted("file", world.upload("large.md", b"x" * 5000), name="large.md"),
                hosted("image", world.upload("cat.png", b"png"), "A cat"),
                external("file", "http://127.0.0.1:1/secret.md"),
            ],
            properties={"Files": told},
        )
        note = {"url": world.upload("my%20note.md", b"# Note"), "expiry_time": "x"}
        world.comment(page, "See this", attachments=[{"category": "productivity", "file": note}])
        world.now += HOUR
        run(world, to, attachments="text", max_attachment_bytes=4000)
        found = stored(to)
        texts = {one.metadata["title"]: one.text_content for k, one in found.items() if "att" in k}
        assert texts == {
            "paper.pdf": "Paper of the year",
            "large.md": "",
            "a.md": "# A",
            "my note.md": "# Note",
        }
        assert [one["name"] for one in found[f"page/{page}"].metadata["attachments"]] == [
            *("paper.pdf", "large.md", "cat.png", "secret.md", "a.md", "b", "my note.md"),
        ]
        assert all(credentials is None for _, _, credentials in world.files.asked)
        # Another run of all looks at no bytes of files that are as they were.
        asked = len(world.files.asked)
        mirror = run(world, to, "mirror", attachments="text", max_attachment_bytes=4000)
        assert (mirror.rows_written, mirror.rows_deleted) == (0, 0)
        assert len(world.files.asked) <= asked + 1

    def test_bytes_are_kept_and_an_expired_address_is_asked_for_again(
        self, world: NotionWorld
    ) -> None:
        world.page("Page", blocks=[hosted("image", world.upload("cat.png", b"png" * 9))])
        world.files.ended = {f"sig{number:08d}" for number in range(2)}
        made = connector(world, attachments="bytes")
        made.authenticate()
        item = next(one for one in made.sync_documents() if one["kind"] == "attachment")
        found = made.map_to_frame_record(item)
        assert isinstance(found, FrameRecord)
        assert (found.raw_data, found.raw_data_type) == (b"png" * 9, "image/png")

    def test_no_item_that_travels_has_a_signed_address(self, world: NotionWorld) -> None:
        world.page(
            "Page",
            icon={"type": "file", "file": {"url": world.upload("i.png", b"i"), "expiry_time": "x"}},
        )
        made = connector(world)
        made.authenticate()
        pages = list(Source(made).pages())
        assert b"X-Amz" not in pickle.dumps(pages)
        assert TOKEN.encode() not in pickle.dumps(connector(world, token="env:NOTION_TOKEN"))


class TestWhatCannotBeRead:
    def test_a_page_that_is_gone_in_mid_run_is_named_and_a_mirror_keeps_it(
        self, world: NotionWorld, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        page, gone = world.page("Page"), world.page("Gone")
        world.now += HOUR
        run(world, to)

        def hide(asked: Any) -> bool:
            if asked.path.endswith("/children"):
                world.hidden.add(gone)
            return False

        world.closing = hide
        receipt = run(world, to, "mirror")
        assert "page Gone" in receipt.unread[0] and receipt.rows_deleted == 0
        assert set(stored(to)) == {f"page/{page}", f"page/{gone}"}

    def test_roots_that_are_not_shared_are_named_and_the_rest_is_read(
        self, world: NotionWorld, tmp_path: Path
    ) -> None:
        page = world.page("Page")
        receipt = run(world, tmp_path / "kb.lance", roots=[page, uid(77)])
        assert receipt.rows_written == 1 and uid(77) in receipt.unread[0]

    def test_without_the_capability_comments_are_left_out_and_a_mirror_deletes_nothing(
        self, world: NotionWorld, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        page = world.page("Page")
        world.comment(page, "Nice")
        world.now += HOUR
        run(world, to)
        world.capabilities -= {"comments", "people"}
        receipt = run(world, to, "mirror", comments="documents")
        assert receipt.rows_deleted == 0 and len(stored(to)) == 2
        assert "capability" in receipt.kept

    def test_a_new_name_is_seen_by_the_next_run_of_all(
        self, world: NotionWorld, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        page = world.page("Page")
        run(world, to)
        world.people[0]["name"] = "Ada Lovelace"
        run(world, to, full=True)
        assert stored(to)[f"page/{page}"].metadata["author"] == "Ada Lovelace"

    def test_without_names_ids_stand(self, world: NotionWorld) -> None:
        world.capabilities -= {"people"}
        page = world.page("Page")
        assert record(world, page).metadata["author"] == world.people[0]["id"]

    def test_a_token_that_is_refused_in_mid_run_ends_it(
        self, world: NotionWorld, tmp_path: Path
    ) -> None:
        world.page("Page")
        world.closing = lambda asked: asked.path.endswith("/children") and world.tokens.clear()
        with pytest.raises(Exception, match="401"):
            run(world, tmp_path / "kb.lance")
        assert not (tmp_path / "kb.lance").exists()

    def test_a_limit_that_outlasts_the_wait_fails_in_one_message(
        self, world: NotionWorld, tmp_path: Path
    ) -> None:
        world.page("Page")
        world.limit = Window(1, 900.0)
        with pytest.raises(ConnectorError, match=r"asks to wait .* s more, and max_wait is 0.1 s"):
            run(world, tmp_path / "kb.lance", max_wait=0.1)

    def test_a_cursor_that_expired_begins_its_list_again_once(self, world: NotionWorld) -> None:
        pages = [world.page(f"Page {number}") for number in range(150)]
        made = connector(world)
        made.authenticate()
        source = Source(made)
        first = next(iter(made.partitions()))
        page = made.fetch_page(first, None)
        world.scripted.append(world._fail(400, "validation_error", "start_cursor is invalid"))
        again = made.fetch_page(first, page.next_cursor)
        last = made.fetch_page(first, again.next_cursor)
        assert {i["path"] for p in (again, last) for i in p.items} == {f"page/{i}" for i in pages}
        world.scripted.append(world._fail(400, "validation_error", "start_cursor is invalid"))
        with pytest.raises(ConnectorError, match="start_cursor"):
            made.fetch_page(first, again.next_cursor)
        assert source is not None

    def test_rows_that_notion_does_not_give_make_the_run_partial(self, world: NotionWorld) -> None:
        tasks = world.data_source("Tasks")
        made = connector(world)
        made.authenticate()
        part = list(made.partitions())[1]
        body = {"object": "list", "results": [], "next_cursor": None, "has_more": False}
        cut = {"type": "incomplete", "incomplete_reason": "query_result_limit_reached"}
        world.scripted.append(Answer(body={**body, "request_status": cut}))
        page = made.fetch_page(part, None)
        assert part.id.endswith(tasks) and "Tasks" in page.partial

    @pytest.mark.parametrize(
        ("settings", "reason"),
        [
            ({"token": None}, "token"),
            ({"client_id": "x"}, "token"),
            ({"roots": ["nonsense"]}, "no id and no address"),
            ({"resources": ["everything"]}, "resources"),
            ({"comments": "some"}, "comments"),
            ({"attachments": "all"}, "attachments"),
            ({"lookback": "soon"}, "lookback"),
            ({"max_depth": 0}, "max_depth"),
            ({"notion_version": "2022-06-28"}, "2025-09-03 or later"),
            ({"markdown": "html"}, "markdown"),
        ],
    )
    def test_arguments_without_sense_are_refused(self, settings, reason):
        with pytest.raises(ConfigError, match=reason):
            NotionConnector(**{"token": TOKEN, **settings})


class TestNotionConnector(ConnectorTests):
    @pytest.fixture(autouse=True)
    def _world(self, world: NotionWorld) -> None:
        self.world = world
        tasks = world.data_source("Tasks")
        for number in range(4):
            world.page(f"Row {number}", tasks)
            page = world.page(f"Page {number}", blocks=[block("paragraph", "Text.")])
            world.comment(page, "Nice")
        world.now += HOUR

    def connector(self) -> NotionConnector:
        return connector(self.world)


def test_a_refresh_token_is_sent_as_notion_takes_it_and_the_new_one_is_kept(
    world: NotionWorld, tmp_path: Path
) -> None:
    kept = tmp_path / "refresh"
    kept.write_text("refresh-token-0001")
    answer = {"access_token": TOKEN, "token_type": "bearer", "refresh_token": "refresh-token-0002"}
    world.scripted.append(Answer(body=answer))
    made = NotionConnector(
        client_id="id",
        client_secret="secret-of-the-client",
        refresh_token=f"file:{kept}",
        base_url=world.url,
        requests_per_second=5000,
    )
    assert made.authenticate()
    asked = world.served[0].asked
    assert (asked.path, asked.headers["content-type"]) == ("/v1/oauth/token", "application/json")
    assert asked.headers["authorization"].startswith("Basic ")
    assert asked.body == {"grant_type": "refresh_token", "refresh_token": "refresh-token-0001"}
    assert kept.read_text().strip() == "refresh-token-0002"


def test_another_workspace_is_not_taken_for_the_first(tmp_path: Path) -> None:
    to = tmp_path / "kb.lance"
    with NotionWorld() as acme, NotionWorld() as other:
        other.bot["bot"] |= {"workspace_id": "22", "workspace_name": "Other"}
        other._number = 500  # else its ids are those of the first
        acme.page("Of Acme")
        run(acme, to)
        with pytest.raises(CommitError, match=r"of '22'.*nothing was\s*committed"):
            run(other, to, "mirror")
        with pytest.raises(ConfigError, match=r"the token is of the workspace Other \(22\)"):
            run(other, to, "mirror", workspace="Acme")
        other.page("Of the other")
        run(other, to, "mirror", workspace="Other")
        assert run(acme, to, "mirror").rows_unchanged == 1
    assert {one.title for one in stored(to).values()} == {"Of Acme", "Of the other"}


def test_two_ways_to_write_a_root_are_one_source() -> None:
    bare = uid(7).replace("-", "")
    both = [
        NotionConnector(token="x", roots=[one]) for one in (uid(7), f"https://notion.so/{bare}")
    ]
    assert both[0].source_id() == both[1].source_id()
    assert both[0].source_id() != NotionConnector(token="x").source_id()


def test_a_dead_letter_keeps_an_item_so_that_it_can_be_tried_again(world: NotionWorld) -> None:
    page = world.page("Page", blocks=[block("paragraph", "Text.")])
    made = connector(world)
    made.authenticate()
    item = next(i for p in Source(made).pages() for i in p.items)
    again = FileItem.of(json.loads(json.dumps(item)))
    found = made.map_to_frame_record(again)
    assert (found.unique_id, found.text_content) == (f"notion:page/{page}", "Text.")


SECOND_OPINION = """
const { Client, collectPaginatedAPI, iteratePaginatedAPI, isFullPage, isFullBlock } = client;
const [url, token, root, source] = given;
const notion = new Client({ auth: token, baseUrl: url, logLevel: "error" });
const bad = new Client({ auth: "bad", baseUrl: url, logLevel: "error" });
const pages = await collectPaginatedAPI(notion.search, {
  filter: { property: "object", value: "page" },
});
async function tree(id) {
  const types = [];
  for await (const one of iteratePaginatedAPI(notion.blocks.children.list, { block_id: id })) {
    if (!isFullBlock(one)) throw new Error("a block is not whole");
    types.push(one.type);
    if (one.has_children) types.push(...(await tree(one.id)));
  }
  return types;
}
const refused = async (call) => { try { await call(); return null; } catch (e) { return e.code; } };
tell({
  me: (await notion.users.me({})).name,
  people: (await collectPaginatedAPI(notion.users.list, {})).map((one) => one.name),
  pages: pages.filter(isFullPage).map((one) => one.id),
  rows: (await collectPaginatedAPI(notion.dataSources.query, { data_source_id: source })).length,
  source: (await notion.dataSources.retrieve({ data_source_id: source })).title[0].plain_text,
  types: await tree(root),
  comments: (await notion.comments.list({ block_id: root })).results.length,
  markdown: (await notion.pages.retrieveMarkdown({ page_id: root })).object,
  unauthorized: await refused(() => bad.users.me({})),
  missing: await refused(() => notion.pages.retrieve({ page_id: "0".repeat(28) + "ffff" })),
});
"""


def test_notions_own_client_reads_the_same_world(world: NotionWorld) -> None:
    chapter = world.page("Chapter")
    root = world.page("Home", blocks=of_every_type(chapter, uid(7), chapter))
    tasks = world.data_source("Tasks", root)
    rows = [world.page(f"Row {number}", tasks) for number in range(120)]
    world.comment(root, "Nice")
    found = node("@notionhq/client", SECOND_OPINION, world.url, TOKEN, root, tasks)

    made = connector(world)
    made.authenticate()
    listed = [item for page in Source(made).pages() for item in page.items]
    ours = {i["path"].removeprefix("page/") for i in listed if i["kind"] in ("page", "row")}
    assert set(found["pages"]) == ours == {chapter, root, *rows}
    assert (found["rows"], found["comments"], found["source"]) == (120, 1, "Tasks")
    assert (found["me"], found["people"]) == ("Reader", ["Ada", "Bob", "Reader"])
    assert len(found["types"]) == len(world.blocks) and found["markdown"] == "page_markdown"
    assert (found["unauthorized"], found["missing"]) == ("unauthorized", "object_not_found")


class TestUnderLoad:
    def test_with_notions_limit_hardly_any_request_is_refused(
        self, world: NotionWorld, tmp_path: Path
    ) -> None:
        for number in range(3):
            world.page(f"Page {number}")
        with world.limited():
            receipt = run(world, tmp_path / "kb.lance", requests_per_second=2.5)
        refused = [one for one in world.served if one.status == 429]
        assert receipt.rows_written == 3 and len(refused) < 0.05 * len(world.served)

    @pytest.mark.parametrize("at", [1, 3, 5, 7])
    def test_a_request_whose_connection_breaks_is_sent_again(
        self, world: NotionWorld, tmp_path: Path, at: int
    ) -> None:
        world.comment(world.page("Page", blocks=[block("toggle", "a")]), "Nice")
        world.closing = lambda asked: asked.number == at
        assert run(world, tmp_path / "kb.lance").rows_written == 2

    @pytest.mark.soak
    def test_ended_at_each_request_the_next_run_ends_right(
        self, world: NotionWorld, tmp_path: Path
    ) -> None:
        home = world.page("Page", blocks=[block("toggle", "a", below=[block("paragraph", "b")])])
        world.page("Row", world.data_source("Tasks", home))
        world.comment(home, "Nice")
        world.now += HOUR
        run(world, tmp_path / "whole.lance")
        whole = {k: v.text_content for k, v in stored(tmp_path / "whole.lance").items()}
        # Who the integration is was asked for once.
        requests = len(world.served) - 1
        for number in range(1, requests):
            to = tmp_path / f"{number}.lance"
            first = len(world.served) + number
            world.closing = lambda asked, first=first: asked.number >= first  # type: ignore[misc]
            with pytest.raises(ConnectorError):
                run(world, to)
            world.closing = None
            run(world, to)
            assert {k: v.text_content for k, v in stored(to).items()} == whole

    @pytest.mark.soak
    def test_a_hundred_thousand_rows_are_read_in_little_memory(self) -> None:
        # In a process of its own, since a world keeps all there is in memory.
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve_rows, args=(theirs, 100_000), daemon=True)
        process.start()
        url = ours.recv()
        subject = Subject(
            lambda: NotionConnector(
                token=TOKEN, base_url=url, requests_per_second=5000, resources=["rows"]
            ),
            limit=100_000,
        )
        (found,) = run_checks(subject, ["memory_stays_bounded"])
        process.terminate()
        assert found.status is Status.PASSED, found


def _serve_rows(told: Any, count: int) -> None:
    """Serves a world with so many rows, and tells its address."""
    with NotionWorld() as world:
        tasks = world.data_source("Tasks")
        for number in range(count):
            world.page(f"Row {number}", tasks)
        told.send(world.url)
        threading.Event().wait()


def test_a_look_shows_what_the_integration_may_read_and_three_frames(world: NotionWorld) -> None:
    home = world.page("Home")
    world.page("Row", world.data_source("Tasks", home))
    world.capabilities -= {"comments"}
    found = look(connector(world))
    assert found.access[:4] == [
        "integration Reader in Acme",
        "2 pages and rows",
        "page Home and what is below it",
        "data source Tasks",
    ]
    assert "the capability to read comments" in found.access[4]
    assert [one.title for one in found.samples] == ["Home", "Tasks", "Row"] and found.ok
