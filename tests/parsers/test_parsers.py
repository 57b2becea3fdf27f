"""Parsers: from the bytes of a file of each type to Markdown, with what the file states."""

import email.message
import io
import json
import sys
import zipfile
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

import docx
import pptx
import pytest
import xlsxwriter
from docx.opc.constants import RELATIONSHIP_TYPE
from docx.oxml import OxmlElement
from docx.oxml.ns import qn

from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.document import Document
from contextframe_beam.parsers import (
    Limits,
    NoTextError,
    ParseError,
    Parsers,
    parse_with,
)
from contextframe_beam.parsers.registry import made
from tests.support.pdf_files import pdf

PARSERS = Parsers()
PICTURE = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg=="


def parse(name: str, data: bytes | str, **limits: Any) -> Document:
    """Returns the document that a file is, in this process."""
    data = data.encode() if isinstance(data, str) else data
    info = PARSERS.find(name, data)
    assert info is not None, f"{name} is of an unknown type"
    return parse_with(made(info.path, info.settings), data, name, Limits(**limits))


def saved(document: Any) -> bytes:
    """Returns the bytes of a document of python-docx or python-pptx."""
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def zipped(members: dict[str, str | bytes]) -> bytes:
    """Returns a zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


class TestMarkdown:
    def test_it_stays_as_it_is(self):
        text = "# Title\n\n- a\n- b\n\n```sh\nls\n```\n"
        assert parse("a.md", text).text == text

    def test_front_matter_becomes_metadata(self):
        document = parse(
            "a.md",
            "---\ntitle: Hello\nauthors: [Ann, Bo]\ntags: x, y\ndate: 2024-05-01\nlevel: 3\n---\n\n"
            "Text",
        )
        assert document == Document(
            "Text",
            title="Hello",
            metadata={
                "author": "Ann, Bo",
                "tags": ["x", "y"],
                "created_at": "2024-05-01",
                "level": 3,
            },
        )

    def test_its_first_heading_is_its_title(self):
        assert parse("a.md", "\n# One *two* #\n\n# Three").title == "One *two*"

    @pytest.mark.parametrize("text", ["---\nno mapping\n---\nx", "---\n[\n---\nx", "---\n\na"])
    def test_what_is_no_front_matter_stays_in_the_text(self, text):
        assert parse("a.md", text).text == text

    def test_front_matter_that_multiplies_itself_is_refused(self):
        bomb = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
            f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in pairwise("abcdefgh")
        )
        with pytest.raises(ParseError, match="metadata"):
            parse("a.md", f"---\n{bomb}---\nText")

    def test_a_picture_inside_the_text_is_left_out(self):
        text = parse("a.md", f"before ![a cat]({PICTURE}) after\n\n[i]: {PICTURE}\n").text
        assert text == "before ![a cat]() after\n\n[i]: \n"


class TestSource:
    def test_it_is_fenced_with_its_language(self):
        assert parse("a.py", "x = 1\n").text == "```python\nx = 1\n```"

    def test_the_fence_is_longer_than_any_within(self):
        assert parse("a.sh", "cat <<E\n````\nE").text.startswith("`````bash\n")

    def test_a_whole_name_tells_the_language(self):
        assert parse("src/Makefile", "all:\n\tls").text == "```makefile\nall:\n\tls\n```"

    def test_the_first_line_tells_the_language(self):
        assert parse("run", "#!/usr/bin/env python3\nx").text.startswith("```python\n")

    def test_it_declares_its_encoding(self):
        data = "# -*- coding: koi8-r -*-\n# привет".encode("koi8-r")
        assert "# привет" in parse("a.py", data).text


class TestHtml:
    def test_headings_lists_tables_code_and_links_survive(self):
        document = parse(
            "a.html",
            "<title>T &amp; t</title><meta name=author content=Ann><h1>H</h1><ul><li>a<li>b</ul>"
            "<table><tr><th>A<th>B<tr><td>1<td>2</table><pre><code class='language-js'>x\n y"
            "</code></pre><p><a href='b.html'>link</a>",
        )
        assert document == Document(
            "# H\n\n- a\n- b\n\n| A | B |\n| --- | --- |\n| 1 | 2 |\n\n```js\nx\n y\n```\n\n"
            "[link](b.html)",
            title="T & t",
            metadata={"author": "Ann"},
        )

    def test_pictures_leave_their_description(self):
        text = parse("a.html", f"<p>x <img src='{PICTURE}' alt='a cat'> <svg><g/></svg>").text
        assert "a cat" in text
        assert "data:" not in text

    def test_a_rule_at_the_start_is_no_front_matter(self):
        assert parse("a.html", "<hr><p>a<hr><p>b").text == "---\n\na\n\n---\n\nb"

    @pytest.mark.parametrize("charset", ["windows-1251", "koi8-r", "utf-8"])
    def test_the_page_declares_its_encoding(self, charset):
        html = f"<meta charset={charset}><p>Да"
        assert parse("a.html", html.encode(charset)).text == "Да"

    def test_elements_that_end_at_once_in_xhtml_swallow_nothing(self):
        page = '<html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head><body><p>a&nbsp;b'
        assert parse("a.xhtml", page + '<a id="x"/></p><p>c</p></body></html>').text == "a b\n\nc"

    def test_tags_nested_too_deep_are_refused(self):
        with pytest.raises(ParseError, match="nested"):
            parse("a.html", "<div>" * 20_000 + "x")

    def test_a_page_of_scripts_has_no_text(self):
        with pytest.raises(NoTextError):
            parse("a.html", "<script>document.write('x')</script>")


class TestPdf:
    def test_pages_have_offsets_and_the_outline_gives_headings(self):
        document = parse(
            "a.pdf",
            pdf(
                ["Intro\nHello", "More\nDetails\nText", "End"],
                outline=[("Intro", 0, 1), ("Details", 1, 2), ("End", 2, 1)],
                info={
                    "Title": "Manual",
                    "Author": "Ann",
                    "CreationDate": "D:20240501120000+02'00'",
                },
            ),
        )
        assert document.text == "Intro\nHello\n\nMore\nDetails\nText\n\nEnd"
        assert [document.text[at:][:4] for at in document.pages] == ["Intr", "More", "End"]
        assert [(one.level, one.title) for one in document.headings] == [
            (1, "Intro"),
            (2, "Details"),
            (1, "End"),
        ]
        assert all(document.text[one.offset :].startswith(one.title) for one in document.headings)
        assert document.title == "Manual"
        assert document.metadata == {"author": "Ann", "created_at": "2024-05-01T12:00:00+02:00"}

    def test_a_page_without_text_may_be_scanned(self):
        with pytest.raises(NoTextError, match="perhaps scanned"):
            parse("a.pdf", pdf([""]))

    def test_what_is_cut_off_is_refused(self):
        with pytest.raises(ParseError, match=r"a\.pdf: it is damaged"):
            parse("a.pdf", pdf(["Text"])[:60])


class TestWord:
    def test_structure_survives(self):
        document = docx.Document()
        document.core_properties.title = "Report"
        document.core_properties.author = "Ann"
        document.add_heading("One", 1)
        paragraph = document.add_paragraph("plain ")
        paragraph.add_run("bold ").bold = True
        paragraph.add_run("both").bold = True
        paragraph.add_run(" and ")
        paragraph.add_run("slanted").italic = True
        document.add_heading("Two", 2)
        document.add_paragraph("a", style="List Bullet")
        document.add_paragraph("b", style="List Bullet 2")
        document.add_paragraph("c", style="List Number")
        table = document.add_table(2, 2)
        for index, text in enumerate(["A", "B", "1|2", "x\ny"]):
            table.cell(index // 2, index % 2).text = text
        made = parse("a.docx", saved(document))
        assert made.text == (
            "# One\n\nplain **bold both** and *slanted*\n\n## Two\n\n- a\n    - b\n1. c\n\n"
            "| A | B |\n| --- | --- |\n| 1\\|2 | x<br>y |"
        )
        assert made.title == "Report"
        assert made.metadata["author"] == "Ann"

    def test_links_survive(self):
        document = docx.Document()
        paragraph = document.add_paragraph("see ")
        link = OxmlElement("w:hyperlink")
        target = document.part.relate_to("http://a.b/", RELATIONSHIP_TYPE.HYPERLINK, True)
        link.set(qn("r:id"), target)
        run = paragraph.add_run("here")
        link.append(run._r)
        paragraph._p.append(link)
        assert parse("a.docx", saved(document)).text == "see [here](http://a.b/)"

    def test_a_file_without_text_is_told_apart(self):
        with pytest.raises(NoTextError):
            parse("a.docx", saved(docx.Document()))

    def test_a_small_file_that_unpacks_to_a_huge_one_is_refused(self):
        with pytest.raises(ParseError, match="times its size"):
            parse("a.docx", zipped({"word/document.xml": b" " * 20_000_000}))

    def test_entities_are_refused(self):
        xml = '<!DOCTYPE x [<!ENTITY a "aa">]><x>&a;</x>'
        with pytest.raises(ParseError, match="entities"):
            parse("a.docx", zipped({"word/document.xml": xml}))


class TestSlides:
    def test_slides_are_pages_with_titles_lists_tables_and_notes(self):
        show = pptx.Presentation()
        slide = show.slides.add_slide(show.slide_layouts[1])
        slide.shapes.title.text = "First"
        slide.placeholders[1].text = "a"
        paragraph = slide.placeholders[1].text_frame.add_paragraph()
        paragraph.text, paragraph.level = "b", 1
        slide.notes_slide.notes_text_frame.text = "say it"
        second = show.slides.add_slide(show.slide_layouts[5])
        second.shapes.title.text = "Second"
        table = second.shapes.add_table(1, 2, 0, 0, 9, 9).table
        table.cell(0, 0).text, table.cell(0, 1).text = "x", "y"
        made = parse("a.pptx", saved(show))
        assert made.text == (
            "## First\n\n- a\n  - b\n\nNotes: say it\n\n## Second\n\n| x | y |\n| --- | --- |"
        )
        assert [made.text[at:][:8] for at in made.pages] == ["## First", "## Secon"]


class TestTables:
    @pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
    def test_the_first_lines_tell_what_divides_columns(self, mark):
        text = f'a{mark}b\n1{mark}"x {mark} y"\n'
        cell = "x \\| y" if mark == "|" else f"x {mark} y".replace("\t", "\t")
        assert parse("a.csv", text).text == f"| a | b |\n| --- | --- |\n| 1 | {cell} |"

    def test_each_sheet_is_a_table_under_its_name(self):
        buffer = io.BytesIO()
        book = xlsxwriter.Workbook(buffer)
        sheet = book.add_worksheet("Prices")
        rows: Sequence[Sequence[Any]] = [["Name", "Price"], ["a|b", 1.5], ["c", 2], ["d", True]]
        for number, row in enumerate(rows):
            sheet.write_row(number, 0, row)
        day = book.add_format({"num_format": "yyyy-mm-dd"})
        sheet.write_datetime(4, 1, datetime(2024, 5, 1), day)
        book.add_worksheet("Empty")
        book.close()
        assert parse("a.xlsx", buffer.getvalue()).text == (
            "## Prices\n\n| Name | Price |\n| --- | --- |\n| a\\|b | 1.5 |\n| c | 2 |\n"
            "| d | TRUE |\n|  | 2024-05-01 |"
        )

    def test_two_cells_far_apart_fill_no_memory(self):
        buffer = io.BytesIO()
        book = xlsxwriter.Workbook(buffer)
        sheet = book.add_worksheet()
        sheet.write("A1", "x")
        sheet.write("XFD1048576", "y")
        book.close()
        with pytest.raises(ParseError, match="spans"):
            parse("a.xlsx", buffer.getvalue())


class TestEpub:
    def test_chapters_come_in_the_order_of_the_book(self):
        page = '<html xmlns="http://www.w3.org/1999/xhtml"><body><h1>{}</h1></body></html>'
        book = zipped(
            {
                "mimetype": "application/epub+zip",
                "META-INF/container.xml": '<c><rootfile full-path="O/b.opf"/></c>',
                "O/b.opf": '<package xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Book'
                "</dc:title><dc:creator>Ann</dc:creator><manifest>"
                '<item id="a" href="t/a%20b.xhtml"/><item id="b" href="b.xhtml"/></manifest>'
                '<spine><itemref idref="b"/><itemref idref="a"/></spine></package>',
                "O/t/a b.xhtml": page.format("Last"),
                "O/b.xhtml": page.format("First"),
            }
        )
        made = parse("a.epub", book)
        assert made == Document("# First\n\n# Last", title="Book", metadata={"author": "Ann"})


class TestMail:
    def test_text_and_names_of_attachments(self):
        message = email.message.EmailMessage()
        message["Subject"], message["From"], message["To"] = "Grüße", "Ann <a@b.c>", "Bo <b@b.c>"
        message["Date"] = "Wed, 01 May 2024 12:00:00 +0200"
        message.set_content("Hello")
        message.add_alternative("<p>Hello in HTML", subtype="html")
        message.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="ä.pdf")
        made = parse("a.eml", message.as_bytes())
        assert made.text == (
            "# Grüße\n\nFrom: Ann <a@b.c>  \nTo: Bo <b@b.c>  \n"
            "Date: Wed, 01 May 2024 12:00:00 +0200\n\nHello\n\nAttachments:\n- ä.pdf"
        )
        assert made.title == "Grüße"
        assert made.metadata == {
            "author": "Ann <a@b.c>",
            "to": "Bo <b@b.c>",
            "created_at": "2024-05-01T12:00:00+02:00",
            "attachments": ["ä.pdf"],
        }

    def test_raw_bytes_of_an_old_mailer_are_read(self):
        text = "Subject: Привет всем\nContent-Type: text/plain; charset=koi8-r\n\nПока"
        made = parse("a.eml", text.encode("koi8-r"))
        assert made.title == "Привет всем"
        assert made.text.endswith("Пока")

    def test_messages_in_messages_end_somewhere(self):
        text = "Content-Type: message/rfc822\n\n" * 1000 + "Subject: x\n\ny"
        with pytest.raises(ParseError, match="nested"):
            parse("a.eml", "Subject: s\n" + text)


class TestNotebook:
    def test_text_code_and_what_it_printed(self):
        made = parse(
            "a.ipynb",
            json.dumps(
                {
                    "metadata": {"language_info": {"name": "python"}},
                    "cells": [
                        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
                        {
                            "cell_type": "code",
                            "source": "print(1)",
                            "outputs": [
                                {"output_type": "stream", "text": "\x1b[31m1\x1b[0m\n"},
                                {"data": {"image/png": "iVBORw0", "text/plain": "<Figure>"}},
                            ],
                        },
                    ],
                }
            ),
        )
        assert made.text == (
            "# Title\ntext\n\n```python\nprint(1)\n```\n\n```text\n1\n```\n\n```text\n<Figure>\n```"
        )

    def test_json_nested_without_end_is_refused(self):
        with pytest.raises(ParseError, match="nested"):
            parse("a.ipynb", "[" * 100_000)


class TestTypes:
    def test_the_suffix_comes_first(self):
        assert parse("a.txt", "# <html>").text == "# <html>"

    def test_then_the_first_bytes_tell(self):
        assert parse("report", pdf(["Text"])).text == "Text"
        assert parse("a.unknown", "<!DOCTYPE html><p>x").text == "x"
        assert parse("download", saved(_one_paragraph())).text == "x"
        assert parse("NOTES", "just text").text == "just text"

    @pytest.mark.parametrize("name", ["a.png", "a.unknown", "a.zip", "binary"])
    def test_others_are_unknown(self, name):
        assert PARSERS.find(name, b"\x00\x01binary") is None
        assert PARSERS.find("a.unknown", b"text") is None

    @pytest.mark.parametrize(
        ("name", "data"),
        [
            ("a.pdf", b""),
            ("a.docx", b""),
            ("a.pdf", b"<html>"),
            ("a.docx", b"PK\x03\x04junk"),
            ("a.xlsx", saved(docx.Document())),
            ("a.pptx", saved(docx.Document())),
            ("a.md", bytes(range(256))),
            ("a.txt", pdf(["x"]) + b"\0"),
            ("a.ipynb", b"{}"),
            ("a.eml", b"no header"),
        ],
    )
    def test_what_is_not_what_its_name_says_is_refused(self, name, data):
        with pytest.raises(ParseError, match=name):
            parse(name, data)

    def test_a_library_that_is_missing_is_named_with_the_file_and_the_extra(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "html_to_markdown", None)
        with pytest.raises(ConfigError, match=r"^a.html: .* html_to_markdown.*beam\[documents\]"):
            parse("a.html", "<p>text</p>")

    def test_a_file_that_is_too_large_is_refused(self):
        with pytest.raises(ParseError, match="max_file_bytes"):
            parse("a.txt", "x" * 100, max_file_bytes=99)


def _one_paragraph() -> Any:
    document = docx.Document()
    document.add_paragraph("x")
    return document
