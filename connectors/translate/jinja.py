"""Templates of a manifest as expressions: `{{ config['x'] or 'y' }}` -> `settings.x or 'y'`.

Airbyte's manifests compute values with Jinja. Jinja's own parser reads them here; nothing is ever
rendered. What the expressions of `api` cannot say raises `Untranslatable`, with its cause.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from contextframe_beam.connectors.translate.converter import Converter
from contextframe_beam.connectors.translate.values import (
    UNITS,
    Code,
    Const,
    Names,
    Ref,
    Untranslatable,
    function,
    seconds_of,
    shown_duration,
    written,
)
from contextframe_beam.errors import ConfigError

if TYPE_CHECKING:
    from jinja2 import nodes

_PLAIN_PATH = re.compile(
    r"(?:(?:settings|parent|each|record|response)(?:\.[\w@$-]+)+|since|until|now)\Z"
)


def template_of(text: Any, names: Names) -> Any:
    """Returns a value of a manifest as a value of ours, with placeholders for its templates.

    Args:
        text: A text, or a value of JSON with texts in it.
        names: What the names of its templates stand for.

    Raises:
        Untranslatable: a template says something that ours cannot.
    """
    if isinstance(text, Mapping):
        return {str(template_of(k, names)): template_of(v, names) for k, v in text.items()}
    if isinstance(text, list):
        return [template_of(one, names) for one in text]
    if not isinstance(text, str):
        return text
    if not _is_template(text):
        return str(text)
    parts = _unquoted(_parts(text, names))
    if len(parts) == 1:
        return _placeholder(parts[0]) if isinstance(parts[0], Code) else _literal(parts[0].value)
    return "".join(
        _placeholder(one) if isinstance(one, Code) else written(one.value) for one in parts
    )


def expression_of(text: Any, names: Names) -> Code | Const:
    """Returns a text of a manifest that is a condition, or one value, as an expression.

    Raises:
        Untranslatable: it says something that ours cannot.
    """
    if not isinstance(text, str):
        return Const(text)
    if not _is_template(text):
        return Const(_literal(text))
    parts = [one for one in _parts(text, names) if one != Const("")]
    if len(parts) == 1:
        one = parts[0]
        return Const(_literal(one.value)) if isinstance(one, Const) else one
    return function("text", *parts) if parts else Const(None)


def condition_of(text: Any, names: Names) -> str | bool:
    """Returns a condition of a manifest: an expression, or whether it always holds.

    Raises:
        Untranslatable: it says something that ours cannot.
    """
    found = expression_of(text, names)
    if isinstance(found, Code):
        return found.text
    return bool(found.value) and found.value not in ("False", "false", "{}", "[]", "()", "0", "0.0")


def reference_of(text: Any) -> Ref | None:
    """Returns the name that a template consists of, such as `response.next`; None for any other."""
    if not isinstance(text, str) or not _is_template(text):
        return None
    try:
        outputs = _outputs(text)
        if len(outputs) != 1:
            return None
        found = Converter(Names(), {}).raw(outputs[0])
    except Untranslatable:
        return None
    return found if isinstance(found, Ref) else None


def duration_of(text: Any, names: Names) -> str:
    """Returns a duration in ISO 8601, as text of ours: `P30D` becomes `30d`.

    Raises:
        Untranslatable: it is not a duration.
    """
    found = template_of(text, names)
    seconds = seconds_of(found) if isinstance(found, str) else None
    if seconds is not None:
        return shown_duration(seconds)
    match = re.fullmatch(r"P(T?)(\{.*\})([WDHMS])", str(found))
    if match is None or (match[3] in "HMS") is not (match[1] == "T"):
        raise Untranslatable("a duration", str(text))
    return f"{match[2]}{UNITS[match[3]]}"


def _is_template(text: str) -> bool:
    return "{{" in text or "{%" in text


def _unquoted(parts: list[Const | Code]) -> list[Const | Code]:
    """Returns parts without the quotes around them all, which Airbyte takes for those of Python."""
    first, last = parts[0], parts[-1]
    if len(parts) < 3 or not isinstance(first, Const) or not isinstance(last, Const):
        return parts
    begin, end = str(first.value), str(last.value)
    quote = begin[:1]
    inner = "".join(str(one.value) for one in parts if isinstance(one, Const))
    if quote not in ("'", '"') or end[-1:] != quote or inner.count(quote) != 2:
        return parts
    made = [Const(begin[1:]), *parts[1:-1], Const(end[:-1])]
    return [one for one in made if one != Const("")]


def _literal(value: Any) -> Any:
    """Returns the value of a text that is a number, a list or the like."""
    if not isinstance(value, str):
        return value
    plain = {"True": True, "true": True, "False": False, "false": False, "None": None, "": None}
    if value.strip() in plain:
        return plain[value.strip()]
    if re.fullmatch(r"-?\d{1,15}", value):
        return int(value)
    if value[:1] in "[{":
        try:
            return json.loads(value.replace("'", '"'))
        except ValueError:
            return value
    return str(value)


def _placeholder(code: Code) -> str:
    if _PLAIN_PATH.match(code.text):
        return f"{{{code.text}}}"
    return f"{{= {code.text} }}"


def _outputs(text: str) -> list[nodes.Node]:
    from jinja2 import nodes

    return [
        one
        for part in _parsed(text)
        for one in (part.nodes if isinstance(part, nodes.Output) else [part])
    ]


def _parsed(text: str) -> list[nodes.Node]:
    try:
        import jinja2
    except ImportError:
        raise ConfigError(
            "the templates of a manifest are read with Jinja2; install it with "
            "pip install 'contextframe-beam[translate]'"
        ) from None
    try:
        return list(jinja2.Environment(autoescape=False).parse(str(text)).body)
    except jinja2.TemplateSyntaxError as error:
        raise Untranslatable("a template that Jinja cannot read", f"{error}: {text:.80}") from None


def _parts(text: str, names: Names) -> list[Const | Code]:
    """Returns the parts of a template: texts and expressions, neighbouring texts joined."""
    try:
        found = Converter(names, {}).body(_parsed(text))
    except Untranslatable as problem:
        if not problem.line:
            problem.line = getattr(text, "line", 0)
        raise
    parts: list[Const | Code] = []
    for one in found:
        last = parts[-1] if parts else None
        if isinstance(one, Const) and isinstance(last, Const):
            parts[-1] = Const(written(last.value) + written(one.value))
        else:
            parts.append(one)
    return [one for one in parts if one != Const("")] or [Const("")]
