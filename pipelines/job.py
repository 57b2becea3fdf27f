"""The settings of a run, each with its documentation, for Python, the command line and Beam YAML.

`ingest` takes them as its arguments, `contextframe-beam ingest` as options, and WriteToLance in
Beam YAML those of the sink. A new field here is a new argument and a new option everywhere.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import shlex
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, MISSING, Field, dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.cursors import Bounds, seconds_of
from contextframe_beam.errors import ConfigError
from contextframe_beam.parsers.contract import Limits
from contextframe_beam.store.address import Address
from contextframe_beam.store.runs import check_run_id, file_name_of, new_run_id
from contextframe_beam.transforms.modes import MODES, mode_of

if TYPE_CHECKING:
    from contextframe_beam.parsers import Parsing
    from contextframe_beam.transforms.enrich import Enricher
    from contextframe_beam.transforms.texts import Texts

P = ParamSpec("P")
R = TypeVar("R")

#: Headings of the options in `--help`.
DATASET = "Dataset"
TEXTS = "Chunks and vectors"
RUN = "Run"
PARSING = "Parsing"

_ABOUT = "about"
_WIDTH = 100


@dataclass(frozen=True)
class About:
    """What is known of a setting beside its type and its default.

    Attributes:
        help: What it does, for every reader.
        section: The heading of its option; "" where the command line has no option of its own.
        metavar: What stands for its value in the help of its option.
        flag: Its option, if the name differs from the field's.
        choices: The only values that it takes, if there are but some.
        least: The least that it may be, if it is a whole number.
        several: Whether its option may be repeated.
        unset: What holds where it is not given, if the default does not say so.
        option_help: What its option's help says instead of `help`.
        in_python: What only a reader of the Python documentation needs.
        in_sink: Whether `WriteToLance` takes it too.
        for_files: Whether it concerns connectors that give files only.
    """

    help: str
    section: str = ""
    metavar: str | None = None
    flag: str = ""
    choices: tuple[str, ...] = ()
    least: int | None = None
    several: bool = False
    unset: str = ""
    option_help: str = ""
    in_python: str = ""
    in_sink: bool = False
    for_files: bool = False


def _setting(default: Any, help: str, section: str = "", **more: Any) -> Any:
    secret = more.pop("secret", False)
    return field(default=default, repr=not secret, metadata={_ABOUT: About(help, section, **more)})


def about(setting: Field[Any]) -> About:
    """Returns what is known of a field of `Job`."""
    found: About = setting.metadata[_ABOUT]
    return found


@dataclass(frozen=True)
class Job:
    """A connector's documents into a dataset: all that is said of one run."""

    connector: BaseConnector = field(metadata={_ABOUT: About("What to read.")})
    to: str = field(
        metadata={
            _ABOUT: About(
                "The dataset: a folder, or an address such as s3://bucket/kb.lance; made if there "
                "is none.",
                DATASET,
                "DATASET",
            )
        }
    )
    _: KW_ONLY
    mode: str = _setting(
        "upsert",
        "upsert replaces documents of the same id and leaves unchanged ones alone; mirror also "
        "deletes those of this source that it no longer has; append adds without looking; "
        "overwrite replaces the whole dataset; create makes a new dataset, and refuses one that "
        "exists.",
        DATASET,
        choices=tuple(MODES),
        in_sink=True,
    )
    embed_dim: int | None = _setting(
        None,
        "Length of the vectors of a new dataset; with an embedder it is the embedder's.",
        DATASET,
        metavar="N",
        least=1,
        unset="1536",
        in_sink=True,
    )
    storage_version: str = _setting(
        "2.1",
        "File format of a new dataset.",
        DATASET,
        choices=("2.0", "2.1", "2.2"),
        in_sink=True,
    )
    storage_options: Mapping[str, str] | None = _setting(
        None,
        "Credentials and settings of the dataset's object store.",
        DATASET,
        flag="--storage-option",
        in_sink=True,
        secret=True,
    )
    columns: Mapping[str, str] | Sequence[str] = _setting(
        (),
        "Fields of metadata to filter and index by, with the types of their columns: text, int64, "
        "float64, bool, timestamp, date or list (of texts). The dataset keeps them, so later runs "
        "need not name them; a value that does not fit makes its item a dead letter.",
        DATASET,
        metavar="NAME[:TYPE]",
        flag="--column",
        several=True,
        option_help="Makes a field of metadata a column to filter and index by. TYPE is text (the "
        "default), int64, float64, bool, timestamp, date or list (of texts). The dataset keeps it; "
        "a value that does not fit makes its item a dead letter. Repeat it for several.",
        in_python='As in `{"price": "float64", "team": "text"}`, or `["price:float64", "team"]`.',
        in_sink=True,
    )
    enrichers: Sequence[Enricher] = _setting(
        (),
        "What adds to each record, in order.",
        RUN,
        metavar="ENRICHER",
        flag="--enrich",
        several=True,
        option_help="Adds to each record: keywords, package.module:Class or "
        "path/to/file.py:Class. Repeat it for several, in order.",
    )
    parsers: Sequence[str] = _setting(
        (),
        "What reads files before the parsers that are installed do, in order: registered names, or "
        "package.module:Class.",
        PARSING,
        metavar="PARSER",
        flag="--parser",
        several=True,
        option_help="Reads files before the parsers that are installed do: a registered name, or "
        "package.module:Class. Repeat it for several, in order.",
        for_files=True,
    )
    max_file_bytes: int = _setting(
        Limits.max_file_bytes,
        "Files of more bytes are not parsed, and become dead letters.",
        PARSING,
        metavar="N",
        least=1,
        for_files=True,
    )
    max_unpacked_bytes: int = _setting(
        Limits.max_unpacked_bytes,
        "Nor are files that unpack to more bytes, or give more text.",
        PARSING,
        metavar="N",
        least=1,
        for_files=True,
    )
    parse_timeout: str | float = _setting(
        "60s",
        "Nor are files that take longer to parse, as in 90s or 5m.",
        PARSING,
        metavar="TIME",
        in_python="A number is one of seconds.",
        for_files=True,
    )
    chunk: str | None = _setting(
        None,
        "How documents are cut into chunks, which are found and embedded by themselves: markdown "
        "(also for plain text), package.module:Class, or none.",
        TEXTS,
        metavar="CHUNKER",
        unset="as the dataset was cut; of a new one, markdown where texts are embedded",
        in_sink=True,
    )
    chunk_tokens: int | None = _setting(
        None,
        "How long a chunk may be, in the embedder's own tokens.",
        TEXTS,
        metavar="N",
        least=1,
        unset="as the dataset was cut; of a new one, 256, or what the embedder reads",
        in_sink=True,
    )
    chunk_overlap: int | None = _setting(
        None,
        "How many tokens of the chunk before a chunk repeats at most.",
        TEXTS,
        metavar="N",
        least=0,
        unset="as the dataset was cut; of a new one, 0",
        in_sink=True,
    )
    embed: str | None = _setting(
        None,
        "What makes vectors of texts: wordllama, onnx:FOLDER, openai:MODEL, vertex:MODEL, "
        "package.module:Class, hash:DIM (for tests), or none. A text that the dataset has a "
        "vector of is not embedded again.",
        TEXTS,
        metavar="NAME[:MODEL]",
        unset="the embedder of the dataset, if it has one",
        in_sink=True,
    )
    embed_url: str | None = _setting(
        None,
        "Where the embedding service is, such as http://127.0.0.1:8080/v1.",
        TEXTS,
        metavar="URL",
        in_sink=True,
    )
    embed_key: str | None = _setting(
        None,
        "The key of the embedding service, as a reference such as env:OPENAI_API_KEY.",
        TEXTS,
        metavar="REFERENCE",
        in_sink=True,
        secret=True,
    )
    embed_budget: Mapping[str, Any] | str | None = _setting(
        None,
        "How much the service may be sent, by all processes together, as in "
        '{"per_second": 5, "tokens_per_minute": 1000000}.',
        TEXTS,
        metavar="JSON",
        in_sink=True,
    )
    embed_options: Mapping[str, Any] | str | None = _setting(
        None,
        "Further settings of the embedder, such as query_prefix, passage_prefix, tokenizer and "
        'dimensions, as in {"query_prefix": "query: "}.',
        TEXTS,
        metavar="JSON",
        unset="those of the dataset",
        in_sink=True,
    )
    max_tokens: int | None = _setting(
        None,
        "Commit nothing if more tokens have to be embedded. Vectors that were made so far are "
        "kept for a run with a higher limit.",
        TEXTS,
        metavar="N",
        least=1,
        in_sink=True,
    )
    dry_run: bool = _setting(
        False,
        "Count documents, chunks, texts and tokens. Nothing is embedded, and nothing committed.",
        TEXTS,
        in_sink=True,
    )
    workers: int = _setting(1, "Worker processes on this machine.", RUN, metavar="N", least=1)
    runner: str = _setting(
        "DirectRunner",
        "What runs the job: this machine, or another of Beam's runners.",
        RUN,
        metavar="NAME",
    )
    run_id: str | None = _setting(
        None,
        "Names the run. A run whose id was committed is not done again: for a scheduler that may "
        "start it twice.",
        RUN,
        metavar="ID",
        in_sink=True,
    )
    full: bool = _setting(
        False,
        "Read everything, whatever an earlier run has read.",
        RUN,
        in_python="The modes overwrite and mirror always do.",
    )
    bounds: Bounds | None = _setting(  # noqa: RUF009
        None,
        'The range of time to read, as `Bounds.of(since="2026-01-01", slice="1d")`. The state '
        "moves to its end where the range leaves nothing out that a run without it would read, and "
        "stays where it is otherwise, so that the next run without it misses nothing.",
        RUN,
    )
    commit_every: str | int | None = _setting(
        None,
        "Commit as the run goes on, whole partitions at a time (of a large file, 8 MiB): 10 of "
        "them, about 100k-rows, or what takes about 15m. If it dies, the same run started again "
        "goes on from there. By default a run is one transaction.",
        RUN,
        metavar="N|Nk-rows|TIME",
        in_python="For the modes upsert and append; `max_failures` holds for each commit.",
    )
    dead_letters: str | None = _setting(
        None,
        "Where items that fail are written, as JSON Lines.",
        RUN,
        metavar="FILE",
        unset="DATASET.dead-letters/RUN.jsonl",
        in_sink=True,
    )
    max_failures: int | str = _setting(
        1000,
        "Commit nothing if more items fail, or all do.",
        RUN,
        metavar="N|P%",
        in_python='A number of items, or a share of those read such as `"5%"`.',
        in_sink=True,
    )
    max_deletes: int | str = _setting(
        "50%",
        "Commit nothing if more documents, or a larger share of those stored of this source, would "
        "be deleted. A share never stops fewer than ten, except when all would go; 100% allows "
        "any.",
        RUN,
        metavar="N|P%",
        in_python="With `commit_every` all its commits count together.",
        in_sink=True,
    )
    metrics: str | None = _setting(
        None,
        "Where metrics of the run go: a file that Prometheus collects, or the address of a push "
        "gateway.",
        RUN,
        metavar="FILE|URL",
    )
    lineage: str | None = _setting(
        None,
        "Where OpenLineage events of the run go: a file, or the address of a server.",
        RUN,
        metavar="FILE|URL",
    )
    beam_args: Sequence[str] = _setting((), "Beam's own options, as on a command line.")
    sync_kwargs: Mapping[str, Any] | None = _setting(
        None, "Arguments of the connector's `sync_documents`.", secret=True
    )

    def __post_init__(self) -> None:
        # Python's users may give a Path.
        object.__setattr__(self, "to", os.fspath(self.to))
        check_run_id(self.run_id)
        if self.columns:
            from contextframe_beam.frames.fields import parse_fields

            parse_fields(self.columns)

    @cached_property
    def id(self) -> str:
        """The run's id, made up where none is given."""
        return self.run_id or new_run_id()

    @cached_property
    def range(self) -> Bounds:
        """The range of time to read, which may be all."""
        return self.bounds or Bounds()

    @property
    def address(self) -> Address:
        """The dataset."""
        return Address(self.to, self.storage_options)

    @property
    def letters(self) -> str:
        """Where the dead letters go."""
        return self.dead_letters or default_dead_letters(self.to, self.id)

    @property
    def reading(self) -> dict[str, Any]:
        """The arguments of the connector's `sync_documents`."""
        return dict(self.sync_kwargs or {})

    @property
    def reads_all(self) -> bool:
        """Whether it reads everything: of what these modes do not read, nothing is left."""
        return self.full or mode_of(self.mode).reads_all

    @cached_property
    def source(self) -> str:
        """The id of what is read: a run of another source may have taken the run's id."""
        return self.connector.source_id(self.reading)

    @cached_property
    def parsing(self) -> Parsing:
        """How files become documents."""
        return parsing_of(**{one.name: getattr(self, one.name) for one in settings(for_files=True)})

    @cached_property
    def made_with(self) -> bytes:
        """The settings that its documents are made with; other settings make documents again.

        Empty where the connector does not say which documents it has.
        """
        from contextframe_beam.transforms.parse import is_prepared
        from contextframe_beam.transforms.recognise import made_with

        if not is_prepared(self.connector):
            return b""
        parsers = (self.parsing.parsers.identity,) if self.connector.gives_files else ()
        return made_with(self.connector, self.enrichers, *parsers, self.texts.made_with)

    @cached_property
    def mapping(self) -> str:
        """A digest of how items become documents: the connector's code and arguments, enrichers."""
        from contextframe_beam.transforms.recognise import mapped_with

        return mapped_with(self.connector, self.enrichers).hex()

    @cached_property
    def texts(self) -> Texts:
        """What becomes of its texts."""
        from contextframe_beam.transforms.texts import Texts

        return Texts.of(
            self.address,
            chunk=self.chunk,
            chunk_tokens=self.chunk_tokens,
            chunk_overlap=self.chunk_overlap,
            embed=self.embed,
            embed_url=self.embed_url,
            embed_key=self.embed_key,
            embed_budget=self.embed_budget,
            embed_options=self.embed_options,
            embed_dim=self.embed_dim,
            max_tokens=self.max_tokens,
            dry_run=self.dry_run,
        )

    @property
    def sink_settings(self) -> dict[str, Any]:
        """What `WriteToLance` takes, beside the dataset."""
        given = {one.name: getattr(self, one.name) for one in settings(in_sink=True)}
        return {**given, "run_id": self.id, "dead_letters": self.letters}


def settings(in_sink: bool = False, for_files: bool = False) -> list[Field[Any]]:
    """Returns the fields of `Job`, or those of them that the sink takes, or that are for files."""
    return [
        one
        for one in fields(Job)
        if (about(one).in_sink or not in_sink) and (about(one).for_files or not for_files)
    ]


def parsing_of(
    parsers: Sequence[str] = (),
    max_file_bytes: int = Limits.max_file_bytes,
    max_unpacked_bytes: int = Limits.max_unpacked_bytes,
    parse_timeout: str | float = Limits.timeout,
) -> Parsing:
    """Returns how files become documents, by the settings of the same names.

    Raises:
        ConfigError: there is no such parser, or a limit makes no sense.
    """
    from contextframe_beam.parsers import Parsers, Parsing

    try:
        timeout = seconds_of(parse_timeout)
    except ValueError as error:
        raise ConfigError(f"`parse_timeout`: {error}") from None
    return Parsing(Parsers(parsers), Limits(max_file_bytes, max_unpacked_bytes, timeout=timeout))


def default_dead_letters(to: str, run_id: str) -> str:
    """Returns where a run's dead letters go when nothing else is said: beside the dataset."""
    return f"{dead_letters_beside(to)}/{file_name_of(run_id)}.jsonl"


def dead_letters_beside(to: str) -> str:
    """Returns the folder of the dead letters of all runs into a dataset."""
    return f"{str(to).rstrip('/')}.dead-letters"


def help_of(setting: Field[Any]) -> str:
    """Returns what a setting does, for a reader of the Python documentation."""
    told = about(setting)
    unset = f"Without it: {told.unset}." if told.unset else ""
    return " ".join(filter(None, [told.help, told.in_python, unset]))


def called_with(job: Callable[P, Job]) -> Callable[[Callable[[Job], R]], Callable[P, R]]:
    """Lets a function of a job be called with the job's settings, and documents them there.

    Args:
        job: `Job`; its type is that of the decorated function's arguments.
    """

    def decorated(function: Callable[[Job], R]) -> Callable[P, R]:
        signature = inspect.signature(job)

        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{function.__name__}() {error}") from None
            return function(job(*args, **kwargs))

        vars(called)["__signature__"] = signature.replace(
            return_annotation=inspect.signature(function).return_annotation
        )
        called.__doc__ = with_arguments(function.__doc__ or "", settings())
        return called

    return decorated


def with_arguments(doc: str, of: Sequence[Field[Any]]) -> str:
    """Returns a docstring in which the line `{settings}` lists settings."""
    found = []
    for line in doc.splitlines():
        if line.strip() == "{settings}":
            indent = line[: len(line) - len(line.lstrip())]
            found += [text for one in of for text in _argument(one, indent)]
        else:
            found.append(line)
    return "\n".join(found)


def _argument(setting: Field[Any], indent: str) -> Iterator[str]:
    yield from textwrap.wrap(
        f"{setting.name}: {help_of(setting)}",
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}    ",
        break_on_hyphens=False,
    )


def parameters(of: Sequence[Field[Any]]) -> list[inspect.Parameter]:
    """Returns settings as parameters of a function, by keyword."""
    return [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if one.default is MISSING else one.default,
            annotation=one.type,
        )
        for one in of
    ]


_SETTING = re.compile(
    r"""(?<![^\s(])  # not within a word or an address
    (?:`(?P<named>\w+)`|(?P<given>\w+)=(?:"(?P<value>[^"]*)"|True\b))""",
    re.VERBOSE,
)


def in_flags(text: str, flags: Mapping[str, str]) -> str:
    """Returns a message with options in place of settings; other text stays as it is.

    Args:
        text: The message.
        flags: The option of each setting, as in `{"run_id": "--run-id"}`.
    """

    def option(match: re.Match[str]) -> str:
        flag = flags.get(match["named"] or match["given"])
        if flag is None:
            return match[0]
        return flag if match["value"] is None else f"{flag} {shlex.quote(match['value'])}"

    return _SETTING.sub(option, text)
