"""From bytes to text: the encoding is known, or told by the text itself, or the file is refused.

A byte order mark decides, then UTF-8, then what the file declares. Without those, each encoding
that is in use is tried. A reading counts when one language explains it: all its letters are of one
alphabet, no word mixes scripts, no capital follows a small letter. When two readings count and
differ, the file is refused, because a wrong guess damages the text and nobody sees it.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from contextframe_beam.parsers.contract import DamagedTextError, ParseError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAMPLE = 256 * 1024
_HIGH = bytes(range(128, 256))
# What a text never holds. Form feeds, tabs, escapes (colours of terminals) and backspaces do occur.
_BINARY = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f]")
# Where pages say ISO-8859-1 they mean Windows-1252, which has more characters:
# https://encoding.spec.whatwg.org/#names-and-labels
_MEANT = {"iso8859-1": "cp1252", "ascii": "cp1252", "shift_jis": "cp932", "gb2312": "gb18030"}
_MEANT |= {"gbk": "gb18030", "euc_kr": "cp949", "iso8859-9": "cp1254"}
_UNSAFE = {"utf-7", "idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"}


def decoded(data: bytes, declared: str | None = None) -> str:
    """Returns the text that bytes are.

    Args:
        data: The bytes.
        declared: The encoding that the file itself states, as in `<meta charset>`.

    Raises:
        ParseError: the bytes are not text, or their encoding is unknown.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _strictly(data[len(mark) :], encoding)
    wide = _wide(data)
    if wide:
        return _strictly(data, wide)
    if _BINARY.search(data):
        raise ParseError("it is not text: it holds control characters, as binary files do")
    named = _codec(declared)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    # What a file declares may be of the time before it was saved as UTF-8; nothing else is valid
    # UTF-8 by chance for more than a few characters.
    sure = named in (None, "utf-8", "cp1252") or text is None or _is_more_than_chance(text)
    if text is not None and sure:
        return text if b"\x1b$" not in data and b"\x1b(" not in data else _japanese_mail(data, text)
    if named and named != "utf-8":
        try:
            return data.decode(named)
        except UnicodeDecodeError:
            pass
    return text if text is not None else _told_by_itself(data)


def _is_more_than_chance(text: str) -> bool:
    return text.isascii() or sum(ord(one) > 127 for one in text[:_SAMPLE]) > 3


def _strictly(data: bytes, encoding: str) -> str:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        raise ParseError(
            f"it begins as {encoding.upper()} but is not valid {encoding.upper()}; "
            "it may be cut off or damaged"
        ) from None
    if re.search(r"[\x00-\x06\x0e-\x1a]", text):
        raise ParseError("it is not text: it holds control characters, as binary files do")
    return text


def _wide(data: bytes) -> str | None:
    """Returns the UTF-16 or UTF-32 that bytes without a mark are, told by where the NULs stand."""
    head = data[:4096]
    if len(data) % 2 or len(data) < 4 or 0 not in head:
        return None
    quarters = [head[start::4].count(0) / max(1, len(head[start::4])) for start in range(4)]
    if len(data) % 4 == 0 and min(quarters[2:]) == 1.0 and quarters[0] < 0.1:
        return "utf-32-le"
    if len(data) % 4 == 0 and min(quarters[:2]) == 1.0 and quarters[3] < 0.1:
        return "utf-32-be"
    even, odd = head[::2].count(0) / len(head[::2]), head[1::2].count(0) / len(head[1::2])
    if even == 0 and odd > 0.3:
        return "utf-16-le"
    if odd == 0 and even > 0.3:
        return "utf-16-be"
    return None


def _codec(name: str | None) -> str | None:
    """Returns Python's name of an encoding that text can be in, or None for any other."""
    if not name:
        return None
    try:
        found = codecs.lookup(name.strip().strip("\"'"))
    except (LookupError, ValueError):
        return None
    # Not every codec is for text: rot13 and zlib are codecs, too.
    if not getattr(found, "_is_text_encoding", True) or found.name.replace("-", "_") in _UNSAFE:
        return None
    if found.name.startswith(("utf-16", "utf-32")):
        return None  # then it would not be readable enough to say so
    return _MEANT.get(found.name, found.name)


def _japanese_mail(data: bytes, text: str) -> str:
    try:
        return data.decode("iso2022_jp_2")
    except UnicodeDecodeError:
        return text


_BORROWED = "ïñèêà"
_RUSSIAN = "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё"
_GREEK = "αοιετσνηυρπκμλωςγδχθφβξζψάέήίόύώϊϋΐΰ"
_POLISH, _HUNGARIAN = "łęąóżśćńź", "áéöőóüíúű"
_CZECH, _SLOVAK = "íáéěřžšýčůúťňďó", "áíýéčšžúľťňôďäóĺŕ"
# The letters beyond ASCII of languages, the commonest first, under the encodings that old files
# in them have.
_ALPHABETS: dict[str, tuple[str, ...]] = {
    "cp1252": (
        "éàèêçîôûùïëâœæüÿ",  # French
        "üäößéèà",  # German
        "óíáéñúüçàèòïªº",  # Spanish, Catalan
        "ãçáéíóêõúâàôüªº",  # Portuguese
        "èàùòìéíîóú",  # Italian
        "äöåøæéàóòâêôü",  # Scandinavian, Finnish
        "áíðóéþöúýæ",  # Icelandic
        "äõüöšž",  # Estonian
        "éëïóöüèêçáíúñ",  # Dutch, and words that English borrowed
    ),
    "cp1250": (_POLISH, _CZECH, _SLOVAK, _HUNGARIAN, "ăîşţâ", "čšžćđ"),
    "iso8859-2": (_POLISH, _CZECH, _SLOVAK, _HUNGARIAN, "ăîşţâ", "čšžćđ"),
    "cp1254": ("ışüğçöîâûİ",),
    "cp1251": (_RUSSIAN + "іїєґўђјљњћџќѓѕ",),
    "koi8-r": (_RUSSIAN,),
    "cp866": (_RUSSIAN,),
    "iso8859-5": (_RUSSIAN + "ђјљњћџ",),
    "cp1253": (_GREEK,),
    "iso8859-7": (_GREEK,),
}
_WIDE = ("cp932", "euc_jp", "gb18030", "big5", "cp949")
# Signs that stand in texts of any language. Others, such as a lone cedilla, are wrong readings.
_SIGNS = "\xa0«»“”„‘’‚–—…•·©®°±§€£¥¿¡№™µ×½¼¾²³´"  # noqa: RUF001
_WORD = re.compile(r"[^\W\d_]+")


def encoding_of(data: bytes, declared: str | None = None) -> str:
    """Returns the encoding that bytes are in, as `decoded` reads them: `utf-8`, `cp1252`, ...

    Args:
        data: The bytes, without half of a character at their end.
        declared: The encoding that a user or the file itself states.

    Raises:
        ParseError: the bytes are not text, or their encoding is unknown.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    wide = _wide(data)
    if wide:
        return wide
    if _BINARY.search(data):
        raise ParseError("it is not text: it holds control characters, as binary files do")
    named = _codec(declared)
    if named is not None:
        return named
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return _reading_of(data)[1]
    return "utf-8"


def _told_by_itself(data: bytes) -> str:
    return _reading_of(data)[0]


def _reading_of(data: bytes) -> tuple[str, str]:
    """Returns the only text that bytes can be, and its encoding."""
    _refuse_damaged(data)
    sample = data[:_SAMPLE]
    if len(data) > _SAMPLE:  # a character at the end of the sample may be cut
        sample = sample[: sample.rfind(b"\n") + 1] or sample
    readings: dict[str, str] = {}
    for encoding in _explaining(sample):
        try:
            readings.setdefault(data.decode(encoding), encoding)
        except UnicodeDecodeError:
            continue
    if len(readings) > 1:
        readings = _likelier(readings)
    if len(readings) != 1:
        raise ParseError(
            "nothing tells its encoding"
            + (f" ({' or '.join(sorted(readings.values()))})" if readings else "")
            + "; save it as UTF-8, or with a byte order mark"
        )
    return next(iter(readings.items()))


def _refuse_damaged(data: bytes) -> None:
    """Refuses what is UTF-8 but for a few bytes: read as anything else it would be all wrong."""
    valid = data.decode("utf-8", "ignore").encode()
    kept, all_ = (len(one) - len(one.translate(None, _HIGH)) for one in (valid, data))
    if kept >= 3 and kept * 4 >= all_ * 3:
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DamagedTextError(
                f"it is UTF-8 but for some bytes, the first at {error.start:,}; it may be damaged"
            ) from None


def _explaining(sample: bytes) -> Iterator[str]:
    for encoding in (*_ALPHABETS, *_WIDE):
        try:
            text = sample.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding in _WIDE:
            if _is_east_asian(text, encoding):
                yield encoding
        elif _is_explained(text, _ALPHABETS[encoding]):
            yield encoding


def _is_explained(text: str, alphabets: tuple[str, ...]) -> bool:
    """Returns whether one of the languages could have written the text."""
    foreign = {one for one in set(text) if ord(one) > 127}
    letters = {_small(one) for one in foreign if one.isalpha() and one not in _SIGNS}
    if any(not one.isalpha() and one not in _SIGNS for one in foreign):
        return False
    if not letters:
        return True
    used = Counter(one for one in map(_small, text) if one in letters)
    if not any(_is_language(used, alphabet) for alphabet in alphabets):
        return False
    return all(_is_word(word) for word in _WORD.findall(text) if not word.isascii())


def _small(letter: str) -> str:
    """Returns a letter in small; the dotted capital of Turkish has no small form of one letter."""
    small = letter.lower()
    return small if len(small) == 1 else letter


def _is_language(used: Counter[str], alphabet: str) -> bool:
    """Returns whether all letters are of an alphabet, and its commonest are used most.

    The first third of an alphabet (of few letters: half) makes more than half of the letters of
    texts in these languages; a wrong reading mixes common and rare letters.
    """
    if not used.keys() <= set(alphabet):
        return False
    first = len(alphabet) // 3 if len(alphabet) > 25 else max(5, len(alphabet) // 2)
    common = sum(used[one] for one in alphabet[:first])
    return common * 2 > sum(used.values())


def _is_word(word: str) -> bool:
    """Returns whether a word is of one script, and has capitals where words have them."""
    latin = [unicodedata.name(one, "").startswith("LATIN") for one in word]
    if any(latin) and not all(latin):
        return False
    return word.islower() or word.isupper() or not _odd_capital(word)


def _odd_capital(word: str) -> bool:
    return any(
        ord(here) > 127 and before.islower() and here.isupper() for before, here in pairwise(word)
    )


def _is_east_asian(text: str, encoding: str) -> bool:
    """Returns whether a text is Japanese, Chinese or Korean by its most frequent characters."""
    wide = [one for one in text if ord(one) > 127]
    kana = sum("\u3040" <= one <= "\u30ff" for one in wide)
    hangul = sum("\uac00" <= one <= "\ud7a3" for one in wide)
    han = [one for one in wide if "\u4e00" <= one <= "\u9fff"]
    signs = sum("\u3000" <= one <= "\u303f" or "\uff00" <= one <= "\uff60" for one in wide)
    if kana + hangul + len(han) + signs + sum(one in _SIGNS for one in wide) < len(wide):
        return False
    if encoding in ("cp932", "euc_jp"):
        return not hangul and kana >= 0.2 * len(wide)
    spaces = text.count(" ")
    if encoding == "cp949":
        return hangul >= 0.8 * len(wide) and spaces * 10 >= hangul
    if kana or hangul or not han or spaces * 10 >= len(han):
        return False
    # The characters that are used most come first in both tables: rows 16 to 55, and A4 to C6.
    last, name = (0xD7, "gb2312") if encoding == "gb18030" else (0xC6, "big5")
    common = 0
    for one in han:
        place = one.encode(name, "ignore")
        common += len(place) == 2 and place[0] <= last
    return common >= 0.9 * len(han)


def _likelier(readings: dict[str, str]) -> dict[str, str]:
    """Keeps the reading as Windows-1252 where it differs from the others in borrowed words only.

    In English (naïve, El Niño) one letter in twenty or fewer is beyond ASCII. In the languages that
    the other readings would be of, such as Czech, there are far more.
    """
    text = next((text for text, encoding in readings.items() if encoding == "cp1252"), None)
    if text is None:
        return readings
    others = [one for one in readings if one != text]
    if any(len(one) != len(text) for one in others):
        return readings
    unlike = [one for one, *rest in zip(text, *others, strict=True) if any(one != r for r in rest)]
    letters = sum(one.isalpha() for one in text)
    if set(unlike) <= set(_BORROWED) and len(unlike) * 20 <= letters:
        return {text: "cp1252"}
    return readings
