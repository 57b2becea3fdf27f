"""Documents of Google's editors become Markdown: a table of cases for each."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from contextframe_beam.connectors.google_drive.editors import (
    document_to_markdown,
    linked_files,
    presentation_to_markdown,
    spreadsheet_to_markdown,
)

LINK = "https://drive.google.com/open?id=1"


@pytest.mark.parametrize(
    ("exported", "markdown"),
    [
        ("\ufeff# A\r\n\r\ntext\r\n", "# A\n\ntext"),
        ("| a | b |\n| :---- | :---- |\n| 1 | 2 |", "| a | b |\n| :---- | :---- |\n| 1 | 2 |"),
        ("![][image1]\n\n[image1]: <data:image/png;base64,AA+/=>", f"![Image]({LINK})"),
        ("![A cat][image2]\n\n[image2]: <data:image/png;base64,AA>\n", f"![A cat]({LINK})"),
        ("![x](data:image/png;base64,AA) y", f"![x]({LINK}) y"),
        ("![][image1] [a][b]\n\n[b]: https://example.test", None),
        ("a [data:](b) c", None),
    ],
)
def test_a_document_keeps_its_text_and_no_bytes_of_images(exported, markdown):
    assert document_to_markdown(exported, LINK) == (exported if markdown is None else markdown)


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("[a](https://docs.google.com/document/d/1abcdefghijk/edit?tab=t.0#h)", ["1abcdefghijk"]),
        ("https://docs.google.com/spreadsheets/u/0/d/1abcdefghijk", ["1abcdefghijk"]),
        ("https://docs.google.com/a/acme.test/presentation/d/1abcdefghijk/", ["1abcdefghijk"]),
        ("https://drive.google.com/file/d/1abcdefghijk/view?usp=sharing", ["1abcdefghijk"]),
        ("https://drive.google.com/open?usp=x&id=1abcdefghijk", ["1abcdefghijk"]),
        ("https://drive.google.com/drive/u/1/folders/1abcdefghijk", ["1abcdefghijk"]),
        ("https://example.test/document/d/1abcdefghijk", []),
    ],
)
def test_links_to_files_are_found(text, files):
    assert linked_files(f"{text} {text}") == files


def sheet(title: str, *rows: list[Any], **properties: Any) -> dict[str, Any]:
    cells = [{"values": [one if isinstance(one, dict) else _cell(one) for one in r]} for r in rows]
    return {
        "properties": {"title": title, "sheetType": "GRID", **properties},
        "data": [{"rowData": cells}],
    }


def _cell(text: str) -> dict[str, Any]:
    return {"formattedValue": text} if text else {}


@pytest.mark.parametrize(
    ("sheets", "markdown"),
    [
        ([sheet("One", ["a", "b"], ["1", "2"])], "## One\n\n| a | b |\n| --- | --- |\n| 1 | 2 |"),
        ([sheet("Gaps", ["", ""], ["a", "", "b"], ["", "1"], [])],
         "## Gaps\n\n| a |  | b |\n| --- | --- | --- |\n|  | 1 |  |"),
        ([sheet("Empty")], "## Empty"),
        ([sheet("Chart", sheetType="OBJECT"), sheet("Old", hidden=True)],
         "## Chart (chart)\n\n## Old (hidden)"),
        ([sheet("Marks", ["a|b", "x\ny", "*z*"])],
         "## Marks\n\n| a\\|b | x<br>y | \\*z\\* |\n| --- | --- | --- |"),
        ([sheet("Links", [{"formattedValue": "a", "hyperlink": "https://b.test"}])],
         "## Links\n\n| [a](https://b.test) |\n| --- |"),
        ([sheet("Notes", [{"formattedValue": "5", "note": "in euros"}])],
         "## Notes\n\n| 5 (in euros) |\n| --- |"),
        ([{}, {"properties": None, "data": "odd"}], "## Sheet\n\n## Sheet"),
    ],
)  # fmt: skip
def test_a_spreadsheet_has_a_table_for_each_sheet(sheets, markdown):
    assert spreadsheet_to_markdown({"sheets": sheets}) == markdown


def text(*runs: Any) -> dict[str, Any]:
    """Returns the text of a shape; a dictionary begins a paragraph, text ends with its line."""
    elements = []
    for run in runs:
        if isinstance(run, dict):
            elements.append({"paragraphMarker": run})
        else:
            content, style = run if isinstance(run, tuple) else (run, {})
            elements.append({"textRun": {"content": content, "style": style}})
    return {"textElements": elements}


def shape(*runs: Any, place: str = "BODY") -> dict[str, Any]:
    return {"shape": {"placeholder": {"type": place}, "text": text(*runs)}}


DOT = {"bullet": {"glyph": "●"}}
DEEP = {"bullet": {"glyph": "○", "nestingLevel": 1}}
ONE = {"bullet": {"glyph": "1."}}


@pytest.mark.parametrize(
    ("elements", "markdown"),
    [
        ([shape({}, "Plan\n", place="TITLE"), shape({}, "a\n")], "## Plan\n\na"),
        ([shape({}, "Big\vPlan\n", place="CENTERED_TITLE")], "## Big Plan"),
        ([shape({}, "a\n", {}, "b\n")], "## Slide 1\n\na\n\nb"),
        ([shape(DOT, "a\n", DEEP, "b\n", DOT, "c\n")], "## Slide 1\n\n- a\n  - b\n- c"),
        ([shape(ONE, "a\n", ONE, "b\n", {}, "c\n")], "## Slide 1\n\n1. a\n1. b\n\nc"),
        ([shape({}, "so ", ("bold", {"bold": True}), " and ", ("it", {"italic": True}), "\n")],
         "## Slide 1\n\nso **bold** and *it*"),
        ([shape({}, ("see", {"link": {"url": "https://b.test"}}), "\n")],
         "## Slide 1\n\n[see](https://b.test)"),
        ([shape({}, ("f(*x)", {"fontFamily": "Roboto Mono"}), "\n")], "## Slide 1\n\n`f(*x)`"),
        ([shape({}, "# no heading\n")], "## Slide 1\n\n\\# no heading"),
        ([shape({}, "7\n", place="SLIDE_NUMBER"), shape({}, "\n")], "## Slide 1"),
        ([{"table": {"tableRows": [
            {"tableCells": [{"text": text({}, "a\n")}, {"text": text({}, "b|c\n")}]},
            {"tableCells": [{"text": text({}, "1\n", {}, "2\n")}, {}]}]}}],
         "## Slide 1\n\n| a | b\\|c |\n| --- | --- |\n| 1<br><br>2 |  |"),
        ([{"elementGroup": {"children": [shape({}, "in\n"), {"elementGroup": {"children": [
            shape({}, "deep\n")]}}]}}], "## Slide 1\n\nin\n\ndeep"),
        ([{"wordArt": {"renderedText": "Wow"}}, {"image": {}, "description": "A cat"},
          {"video": {"url": "https://v.test"}}],
         "## Slide 1\n\nWow\n\n*A cat*\n\n[Video](https://v.test)"),
        ([{"image": {}}], "## Slide 1"),
        (["odd", {"shape": None}, {"table": []}], "## Slide 1"),
    ],
)  # fmt: skip
def test_a_slide_becomes_markdown(elements, markdown):
    told = {"slides": [{"pageElements": elements}]}
    assert presentation_to_markdown(told, Counter()) == markdown


def test_notes_skipped_slides_and_what_is_not_known():
    notes = {
        "notesProperties": {"speakerNotesObjectId": "n"},
        "pageElements": [{"objectId": "n", **shape({}, "Say this\n")}, shape({}, "no\n")],
    }
    slide = {"slideProperties": {"isSkipped": True, "notesPage": notes}, "pageElements": [{}]}
    unknown: Counter[str] = Counter()
    told = presentation_to_markdown({"slides": [slide]}, unknown)
    assert told == "## Slide 1 (skipped)\n\n**Notes:** Say this"
    assert unknown == {"element of a slide": 1}
