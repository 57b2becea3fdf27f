"""The text of a heading without its marks."""

from __future__ import annotations

import html
import re

# Marks that wrap what a reader sees. Each pattern is linear in the length of a line.
_CODE = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)")
_IMAGE_OR_LINK = re.compile(r"!?\[([^\[\]]*)\](?:\([^()]*(?:\([^()]*\)[^()]*)*\)|\[[^\[\]]*\])")
_AUTOLINK = re.compile(r"<([A-Za-z][A-Za-z0-9+.-]{1,31}:[^<>\s]*|[^<>\s@]+@[^<>\s@]+)>")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<!--.*?-->")
_ANCHOR = re.compile(r"\s*\{:?\s*[#.][^{}]*\}\s*$")
_STRONG = re.compile(r"(\*{1,3}|~~)(?=\S)(.+?)(?<=\S)\1")
_UNDERLINED = re.compile(r"(?<![0-9A-Za-z_])(_{1,3})(?=[^\s_])(.+?)(?<=[^\s_])\1(?![0-9A-Za-z_])")
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")

_LONGEST = 300
# Code and escaped characters wait here while marks are taken away; not in any text of a document.
_SAVED = re.compile("\x00(\\d+)\x00")


def plain_title(text: str) -> str:
    """Returns the text of a heading without marks of Markdown and HTML, on one line.

    A title of more than 300 characters is cut: a paragraph can become a heading by mistake.
    """
    saved: list[str] = []

    def save(shown: str) -> str:
        saved.append(shown)
        return f"\x00{len(saved) - 1}\x00"

    text = " ".join(text.replace("\x00", "").split())[: 2 * _LONGEST]
    text = _ANCHOR.sub("", text)
    text = _CODE.sub(lambda found: save(found[2].strip()), text)
    text = _ESCAPE.sub(lambda found: save(found[1]), text)
    for _ in range(2):  # a picture may stand in a link
        text = _IMAGE_OR_LINK.sub(r"\1", text)
    text = _AUTOLINK.sub(lambda found: save(found[1]), text)
    text = _TAG.sub("", text)
    for _ in range(2):
        text = _STRONG.sub(r"\2", text)
        text = _UNDERLINED.sub(r"\2", text)
    text = html.unescape(text)
    text = _SAVED.sub(lambda found: saved[int(found[1])], text)
    return " ".join(text.split())[:_LONGEST].rstrip()
