"""Plain text, Markdown and source code: files that are text already."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from contextframe_beam.frames.document import Document
from contextframe_beam.parsers.clean import as_json, line
from contextframe_beam.parsers.contract import Limits, ParseError
from contextframe_beam.parsers.encodings import decoded


class TextParser:
    """Reads plain text as it is."""

    version = "1"
    suffixes = (
        *(".txt", ".text", ".log", ".rst", ".adoc", ".asciidoc", ".org", ".tex", ".textile"),
        *(".srt", ".vtt", ".po", ".diff", ".patch", ".man"),
    )

    def parse(self, data: bytes, name: str, limits: Limits) -> Document:
        """Returns the text of a file."""
        return Document(decoded(data))


class MarkdownParser:
    """Reads Markdown; the front matter (YAML between lines of `---`) becomes metadata."""

    version = "1"
    suffixes = (".md", ".markdown", ".mdown", ".mkd", ".mdx", ".rmd", ".qmd")

    def parse(self, data: bytes, name: str, limits: Limits) -> Document:
        """Returns the text of a file, and what its front matter says."""
        text, metadata = without_front_matter(decoded(data).replace("\r\n", "\n"))
        title = metadata.pop("title", None)
        first = re.match(r"\s*#[ \t]+([^\n]+?)[ \t#]*(?:\n|$)", text)
        return Document(
            text,
            title=line(str(title)) if title else first and first.group(1),
            metadata=metadata,
        )


class SourceParser:
    """Reads source code whole, in a fence that names its language."""

    version = "1"
    languages: ClassVar = {
        "bash": ".sh .bash .zsh .ksh .bashrc .profile",
        "batch": ".bat .cmd",
        "c": ".c .h",
        "clojure": ".clj .cljs .edn",
        "cmake": ".cmake cmakelists.txt",
        "cpp": ".cc .cpp .cxx .hh .hpp .hxx .ino",
        "csharp": ".cs",
        "css": ".css",
        "cuda": ".cu .cuh",
        "dart": ".dart",
        "dockerfile": ".dockerfile dockerfile containerfile",
        "elixir": ".ex .exs",
        "erlang": ".erl .hrl",
        "fortran": ".f .f90 .f95",
        "fsharp": ".fs .fsi .fsx",
        "go": ".go go.mod",
        "gradle": ".gradle",
        "graphql": ".graphql .gql",
        "groovy": ".groovy jenkinsfile",
        "haskell": ".hs",
        "hcl": ".tf .tfvars .hcl",
        "ini": ".ini .cfg .conf .properties .editorconfig",
        "java": ".java",
        "javascript": ".js .mjs .cjs",
        "json": ".json .json5 .jsonc .jsonl .ndjson .geojson",
        "jsx": ".jsx",
        "julia": ".jl",
        "kotlin": ".kt .kts",
        "less": ".less",
        "lisp": ".lisp .el .scm .rkt",
        "lua": ".lua",
        "makefile": ".mk makefile gnumakefile",
        "nix": ".nix",
        "objectivec": ".m .mm",
        "ocaml": ".ml .mli",
        "pascal": ".pas",
        "perl": ".pl .pm",
        "php": ".php",
        "powershell": ".ps1 .psm1",
        "protobuf": ".proto",
        "python": ".py .pyi .pyx .pyw .bzl .star",
        "r": ".r",
        "ruby": ".rb .rake gemfile rakefile",
        "rust": ".rs",
        "scala": ".scala .sbt",
        "scss": ".scss .sass",
        "solidity": ".sol",
        "sql": ".sql",
        "svelte": ".svelte",
        "swift": ".swift",
        "toml": ".toml",
        "tsx": ".tsx",
        "typescript": ".ts .mts .cts",
        "vbnet": ".vb",
        "verilog": ".v .sv",
        "vhdl": ".vhd .vhdl",
        "vim": ".vim",
        "vue": ".vue",
        "wasm": ".wat",
        "xml": ".xml .xsd .xsl .xslt .plist .rss .atom",
        "yaml": ".yaml .yml",
        "zig": ".zig",
    }
    suffixes = tuple(end for ends in languages.values() for end in ends.split())
    _language: ClassVar = {
        end: language for language, ends in languages.items() for end in ends.split()
    }

    def parse(self, data: bytes, name: str, limits: Limits) -> Document:
        """Returns the source code of a file, fenced."""
        declared = None
        if data.startswith(b"<?xml"):
            found = re.match(rb"<\?xml[^>]*?encoding\s*=\s*[\"']([\w.-]{1,40})", data[:200])
            declared = found.group(1).decode("ascii") if found else None
        elif found := re.search(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)", data[:200], re.M):
            declared = found.group(1).decode("ascii", "ignore")  # PEP 263
        text = decoded(data, declared)
        base = name.replace("\\", "/").rsplit("/", 1)[-1].lower()
        language = self._language.get(base) or self._language.get(
            "." + base.rsplit(".", 1)[-1] if "." in base else "", self._by_first_line(text)
        )
        return Document(fenced(text, language) if text.strip() else "")

    def _by_first_line(self, text: str) -> str:
        first = text.split("\n", 1)[0] if text.startswith("#!") else ""
        if "node" in first:
            return "javascript"
        return next((one for one in ("python", "ruby", "perl", "php") if one in first), "bash")


def fenced(text: str, language: str = "") -> str:
    """Returns text as a block of code, in a fence longer than any run of backticks within."""
    text = text.replace("\r\n", "\n").strip("\n")
    longest = max(map(len, re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


_FRONT = re.compile(r"\A---[ \t]*\n(.*?)(?:^|\n)(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.S)
_LONGEST_FRONT = 64 * 1024
_SHORT_FRONT = 4 * 1024
_NAMES = {
    "authors": "author",
    "keywords": "tags",
    "date": "created_at",
    "created": "created_at",
    "published": "created_at",
    "updated": "modified_at",
    "modified": "modified_at",
    "lastmod": "modified_at",
    "last_modified": "modified_at",
}


def without_front_matter(text: str) -> tuple[str, dict[str, Any]]:
    """Returns Markdown without its front matter, and the values that it holds.

    What begins like front matter but is no YAML mapping stays in the text.
    """
    found = _FRONT.match(text[: _LONGEST_FRONT + 8])
    values = _mapping(found.group(1)) if found else None
    if found is None or values is None:
        return text, {}
    return text[found.end() :].lstrip("\n"), as_metadata(values)


def _mapping(text: str) -> dict[str, Any] | None:
    import yaml

    # The loader in C is ten times as fast, and crashes where values are nested very deep.
    fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        value = yaml.load(text, fast if len(text) < _SHORT_FRONT else yaml.SafeLoader)
        return as_json(value) if isinstance(value, dict) else None
    except ParseError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, AttributeError, OverflowError):
        return None


def as_metadata(values: dict[str, Any]) -> dict[str, Any]:
    """Returns what a file states under the names that documents have.

    `date` becomes `created_at`, a list of authors one text, a text of keywords a list of tags.
    """
    known: dict[str, Any] = {}
    for key, value in values.items():
        known.setdefault(_NAMES.get(key.lower(), key), value)
    if "author" in known:
        known["author"] = _people(known["author"])
    if "tags" in known:
        known["tags"] = _words(known["tags"])
    return as_json(known)


def _people(value: Any) -> str:
    if isinstance(value, dict):
        return line(str(value.get("name") or ", ".join(map(str, value.values()))))
    if isinstance(value, list):
        return ", ".join(filter(None, map(_people, value)))
    return line(str(value if value is not None else ""))


def _words(value: Any) -> list[str]:
    if isinstance(value, str):
        value = re.split(r"[;,]", value)
    if not isinstance(value, list):
        value = [value]
    words = [line(str(one)) for one in value if one is not None]
    return list(dict.fromkeys(filter(None, words)))
