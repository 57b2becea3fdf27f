"""Laws of parsers: any bytes give clean text or a refusal, and no guess damages a text."""

import io
import re
import zipfile
from collections.abc import Iterator

import docx
import pytest
import xlsxwriter
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam.frames.document import Document, Heading
from contextframe_beam.parsers import (
    Limits,
    ParseError,
    ParserPool,
    Parsers,
    UnknownTypeError,
)
from contextframe_beam.parsers.clean import cleaned
from contextframe_beam.parsers.encodings import decoded
from tests.support.laws import examples
from tests.support.pdf_files import pdf

UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffd-\uffff\ud800-\udfff]")


def _docx() -> bytes:
    document, buffer = docx.Document(), io.BytesIO()
    document.add_heading("Title")
    document.add_table(1, 1).cell(0, 0).text = "cell"
    document.save(buffer)
    return buffer.getvalue()


def _xlsx() -> bytes:
    buffer = io.BytesIO()
    book = xlsxwriter.Workbook(buffer)
    book.add_worksheet().write_row(0, 0, ["a", 1])
    book.close()
    return buffer.getvalue()


REAL = {
    ".pdf": pdf(["One", "Two"], outline=[("Two", 1, 1)], info={"Title": "T"}),
    ".docx": _docx(),
    ".xlsx": _xlsx(),
    ".html": b"<meta charset=utf-8><h1>T</h1><p>a<table><tr><td>b</table><img src='data:a/b,c'>",
    ".md": b"---\ntitle: T\n---\n# T\n\ntext ![x](data:image/png;base64,AAAA)",
    ".eml": b"Subject: =?utf-8?q?T=C3=A4?=\nContent-Type: text/plain; charset=utf-8\n\n\xc3\xa4",
    ".ipynb": b'{"cells": [{"cell_type": "code", "source": ["x"], "outputs": [{"text": "y"}]}]}',
    ".csv": b'a,b\n1,"2\n3"\n',
}
SUFFIXES = sorted({one for info in Parsers().found for one in info.suffixes or ()})


@pytest.fixture(scope="module")
def pool() -> Iterator[ParserPool]:
    with ParserPool(limits=Limits(timeout=30), processes=1) as one:
        yield one


def check(pool: ParserPool, name: str, data: bytes) -> None:
    """Asserts that a file gives clean text, or is refused in words that do not hold it."""
    try:
        document = pool.parse(name, data)
    except (ParseError, UnknownTypeError) as error:
        assert str(error).startswith(name)
        assert not UNWANTED.search(str(error))
        return
    assert not UNWANTED.search(document.text)
    assert "data:image/png;base64,A" not in document.text
    assert all(0 <= at <= len(document.text) for at in document.pages)
    assert list(document.headings) == sorted(document.headings, key=lambda one: one.offset)
    document.text.encode()


@given(suffix=st.sampled_from(SUFFIXES), data=st.binary(max_size=300))
@settings(max_examples=examples(1000))
def test_any_bytes_under_any_name_give_clean_text_or_a_refusal(pool, suffix, data):
    check(pool, "a" + suffix if suffix.startswith(".") else suffix, data)


@given(data=st.data(), suffix=st.sampled_from(sorted(REAL)))
@settings(max_examples=examples(1000))
def test_a_damaged_file_gives_clean_text_or_a_refusal(pool, data, suffix):
    real = REAL[suffix]
    start = data.draw(st.integers(0, len(real)))
    end = data.draw(st.integers(start, min(len(real), start + 50)))
    check(pool, "a" + suffix, real[:start] + data.draw(st.binary(max_size=20)) + real[end:])


@given(suffix=st.sampled_from([".txt", ".md", ".html", ".py", ".csv"]), text=st.text(max_size=200))
@settings(max_examples=examples(400))
def test_text_in_utf_8_comes_back_but_for_what_no_text_holds(pool, suffix, text):
    check(pool, "a" + suffix, text.encode("utf-8", "surrogatepass"))


SENTENCES = {
    "cp1252": [
        "Il est né à Genève où il a vécu jusqu'à sa mort.",
        "Über den Wolken muss die Freiheit wohl grenzenlos sein – schöne Grüße.",
        "¿Dónde está la biblioteca? Mañana iré con mi compañera.",
        "Você não está só; amanhã é outro dia, irmão.",
        "Hvor er du på vei? Jeg er på vei hjem, kjære.",
        "The naïve café owner wrote a résumé. “Quoted” text costs 5 €.",
    ],
    "cp1250": [
        "Dobrý den, jak se máte? Děkuji, mám se dobře, a co vy?",
        "Dzień dobry, jak się masz? Wszystko w porządku, dziękuję.",
        "A magyar nyelv nagyon szép és különös, őszintén szólva nehéz is.",
    ],
    "cp1251": ["Привет, мир! Это простой текст.", "Добрий день, як справи?"],
    "koi8-r": ["Как дела? Хорошо, спасибо."],
    "cp866": ["Как дела? Хорошо, спасибо."],
    "cp1253": ["Καλημέρα, τι κάνετε;"],
    "cp1254": ["Günaydın, nasılsınız? İstanbul güzel bir şehir."],
    "cp932": ["これはテストです。"],
    "euc_jp": ["これはテストです。"],
    "iso2022_jp": ["これはテストです。"],
    "gb18030": ["你好，世界。这是一个中文文本。"],
    "big5": ["你好，世界。這是一個中文文本。"],
    "cp949": ["안녕 세상 이것은 한국어 문장 입니다"],
}


@pytest.mark.parametrize(
    ("encoding", "text"), [(one, text) for one, texts in SENTENCES.items() for text in texts]
)
def test_an_old_encoding_is_told_by_its_text(encoding, text):
    assert decoded(text.encode(encoding)) == text


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_wide_encodings_are_read_with_and_without_a_mark(encoding):
    assert decoded("# Überschrift\n\nText".encode(encoding)) == "# Überschrift\n\nText"


@given(
    data=st.data(),
    encoding=st.sampled_from(sorted(SENTENCES)),
    declared=st.booleans(),
)
@settings(max_examples=examples(1000))
def test_a_piece_of_a_text_is_read_right_or_refused(data, encoding, declared):
    text = data.draw(st.sampled_from(SENTENCES[encoding]))
    start = data.draw(st.integers(0, max(0, len(text) - 12)))
    piece = text[start:]
    try:
        assert decoded(piece.encode(encoding), encoding if declared else None) == piece
    except ParseError:
        assert not declared


@given(data=st.data(), encoding=st.sampled_from(sorted(SENTENCES)))
@settings(max_examples=examples(600))
def test_damaged_utf_8_is_refused(data, encoding):
    text = data.draw(st.sampled_from(SENTENCES[encoding]))
    whole = text.encode()
    at = data.draw(st.integers(len(whole) // 2, len(whole)))
    with pytest.raises(ParseError):
        decoded(whole[:at] + b"\xff" + whole[at:])


@given(
    before=st.text(max_size=60),
    after=st.text(max_size=60),
    pictures=st.integers(0, 2),
)
@settings(max_examples=examples(600))
def test_places_move_along_with_the_text(before, after, pictures):
    before += "![](data:image/png;base64,AAAA)\r\n" * pictures
    made = cleaned(
        Document(
            f"{before}⌖{after}", headings=(Heading(len(before), 1, "H"),), pages=(0, len(before))
        )
    )
    assert made.text[made.headings[0].offset] == "⌖" == made.text[made.pages[1]]
    assert "data:image" not in made.text
    assert cleaned(made) == made


def test_an_archive_that_lies_about_its_size_is_refused(pool):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"a" * 30_000_000)
    data = bytearray(buffer.getvalue())
    for mark, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = data.rfind(mark) + place
        data[start : start + 4] = (100).to_bytes(4, "little")
    with pytest.raises(ParseError, match="cannot be unpacked"):
        pool.parse("a.docx", bytes(data))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.md", b"---\n" + b"? " * 30_000 + b"\n---\nx"),
        ("a.eml", b"Subject: x\n" + b"Content-Type: multipart/mixed; boundary=b\n\n--b\n" * 1000),
        ("a.eml", b"Subject: " + b"=?utf-8?q?a?= " * 50_000 + b"\n\nb"),
        ("a.md", b"data:image/svg+xml,<svg" * 50_000),
        ("a.html", b"<ul><li>" * 5_000 + b"x"),
        ("a.csv", b'"' + b"a,b\n" * 100_000),
        ("a.ipynb", b'{"cells":' + b"[" * 100_000),
    ],
)
def test_a_file_made_to_last_for_ever_ends(pool, name, data):
    check(pool, name, data)


def test_a_page_that_was_saved_as_utf_8_later_is_read_as_that():
    assert decoded("Привет, мир".encode(), "windows-1251") == "Привет, мир"
    assert decoded("Да".encode("cp1251"), "windows-1251") == "Да"
