"""Turns an exception into the one message for the user.

Beam wraps the exceptions of steps. In this process it appends the step's name to the message. From
a worker process it raises a RuntimeError with the worker's traceback as text.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import click

from contextframe_beam import errors
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import nearest

_STEP = re.compile(r"\s*\[while running '(?:[^']|'(?!\]))*'\]")
_RAISED = re.compile(r"^(?P<type>[A-Za-z_][\w.]*): ?(?P<message>.*)", re.MULTILINE)
_TRACEBACK = "Traceback (most recent call last):"
_CAUSE = "The above exception was the direct cause of the following exception:"


@dataclass(frozen=True)
class Report:
    """The report about a failure.

    Attributes:
        message: What was wrong, where, and what to do.
        wrong_usage: Whether the command itself was wrong.
        unexpected: Whether we did not expect it, so that a traceback may help.
        hint: A line below the message.
        is_help: Whether the message is the help, not an error.
    """

    message: str
    wrong_usage: bool = False
    unexpected: bool = False
    hint: str = ""
    is_help: bool = False

    def text(self, debug: bool = False) -> str:
        """Returns the lines for the standard error, without secrets.

        Args:
            debug: Whether the traceback has been shown already.
        """
        lines = [self.message if self.is_help else f"Error: {self.message}"]
        if self.hint:
            lines.append(self.hint)
        if self.unexpected and not debug:
            lines.append("This was not expected; the same command with --debug shows where it is.")
        return redact("\n".join(lines))


def report_of(error: BaseException) -> Report:
    """Returns the report about an exception, without Beam's wrapping."""
    if isinstance(error, click.UsageError):
        return _usage(error)
    if isinstance(error, click.ClickException):
        return Report(error.format_message())
    if isinstance(error, errors.ContextFrameError):
        return Report(_without_step(str(error)), isinstance(error, errors.ConfigError))
    text = text_of(error)
    if (isinstance(error, RuntimeError) and _TRACEBACK in text) or _names_ours(text):
        return _of_worker(text)
    message = _without_step(text)
    name = type(error).__name__
    return Report(f"{name}: {message}" if message else name, unexpected=True)


def ours_of(error: BaseException) -> errors.ContextFrameError | None:
    """Returns our own exception from inside Beam's, or None."""
    text = text_of(error)
    if isinstance(error, errors.ContextFrameError):
        return _made(type(error), _without_step(text))
    raised = list(_RAISED.finditer(text))
    for match in reversed(raised):
        kind = _class_of(match["type"])
        if kind is not None:
            return _made(kind, _message_at(text, match, raised))
    return None


def _made(kind: type[errors.ContextFrameError], message: str) -> errors.ContextFrameError:
    """Returns an exception with a message, of the nearest class that needs no more than that."""
    for one in kind.__mro__:
        try:
            made = one(message)
        except TypeError:  # such as the size of a file, which no message tells
            continue
        if isinstance(made, errors.ContextFrameError):
            return made
    return errors.ContextFrameError(message)


def _usage(error: click.UsageError) -> Report:
    message = error.format_message()
    if message.startswith("Usage:"):  # without arguments, the message is the help
        return Report(message, wrong_usage=True, is_help=True)
    if isinstance(error, click.NoSuchOption):
        message = no_such_option(error.option_name, error.possibilities or ())
    if isinstance(error, click.BadParameter) and isinstance(error.param, click.Parameter):
        near = _near_choice(error.param.type, message)
        message = message.removesuffix(".") + near if near else message
    hint = ""
    if error.ctx is not None:
        hint = f"See `{error.ctx.command_path} --help`."
    return Report(message, wrong_usage=True, hint=hint)


def _near_choice(kind: object, message: str) -> str:
    given = re.search(r"'([^']*)' is not one of", message)
    if given is None or not isinstance(kind, click.Choice):
        return ""
    return nearest(given[1], [str(one) for one in kind.choices])


def no_such_option(name: str, *known: Iterable[str]) -> str:
    """Returns the message for a misspelt option, with the nearest known option."""
    return f"no such option: {name}{nearest(name, [one for options in known for one in options])}"


def _of_worker(text: str) -> Report:
    """Reports the last exception in the text of a worker's traceback."""
    raised = list(_RAISED.finditer(text))
    ours = [match for match in raised if _class_of(match["type"]) is not None]
    if ours:
        match = ours[-1]
        kind = _class_of(match["type"])
        message = _message_at(text, match, raised)
        return Report(message, kind is not None and issubclass(kind, errors.ConfigError))
    if not raised:
        return Report(_last_line(text), unexpected=True)
    match = raised[-1]
    name = match["type"].rpartition(".")[2]
    return Report(f"{name}: {_message_at(text, match, raised)}", unexpected=True)


def _message_at(text: str, match: re.Match[str], raised: list[re.Match[str]]) -> str:
    """Returns a message from its beginning to the step's name, or to the end of the text."""
    rest = text[match.start("message") :]
    step = _STEP.search(rest)
    if step is not None:
        return rest[: step.start()].strip()
    for sign in ("\n\n", f"\n{_TRACEBACK}"):
        rest = rest.partition(sign)[0]
    return rest.strip()


def _names_ours(text: str) -> bool:
    return any(_class_of(match["type"]) is not None for match in _RAISED.finditer(text))


def _class_of(name: str) -> type[errors.ContextFrameError] | None:
    """Returns the class with a full name, if it is one of our exceptions and is loaded here."""
    module, _, qualname = name.rpartition(".")
    found = getattr(sys.modules.get(module), qualname, None)
    if isinstance(found, type) and issubclass(found, errors.ContextFrameError):
        return found
    return None


def _without_step(text: str) -> str:
    return _STEP.sub("", text).strip()


def text_of(error: BaseException) -> str:
    """Returns the text of an exception, without what Beam appends.

    If an engine asks about a failed bundle, Beam answers with the exception that made it fail.
    """
    try:
        text = str(error)
    except Exception:
        return ""
    cause, _, rest = text.rpartition(_CAUSE)
    return cause.rstrip() if "Bundle processing associated with" in rest else text


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "a worker process failed without saying why"
