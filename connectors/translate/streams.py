"""A stream of a manifest as a resource of `api`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from contextframe_beam.connectors.translate.answers import rules_of
from contextframe_beam.connectors.translate.jinja import (
    condition_of,
    duration_of,
    expression_of,
    template_of,
)
from contextframe_beam.connectors.translate.manifest import PARAMETERS, Part
from contextframe_beam.connectors.translate.paging import paginator_of, place_of, with_added
from contextframe_beam.connectors.translate.requests import base_of, path_of, request_of
from contextframe_beam.connectors.translate.values import (
    Code,
    Const,
    Names,
    Untranslatable,
    form_of,
)

#: Longer than any range of time that is read, so that it is one slice.
_ONE_SLICE = "36500d"
_DEFAULT_FORM = "%Y-%m-%dT%H:%M:%S.%f%z"


@dataclass
class Read:
    """What a stream is read for: records of a parent, values of lists, a range of time.

    Attributes:
        parent: The name of the parent's resource.
        each: The lists of values.
        slices: The expressions for fields of a slice, by their names.
        added: Values by the places of requests that they go to.
    """

    parent: str | None = None
    each: dict[str, Any] = field(default_factory=dict)
    slices: dict[str, str] = field(default_factory=dict)
    added: dict[str, Any] = field(default_factory=dict)


def resource_of(
    stream: Part, name: str, parent_of: Callable[[Part], str], parent: Part | None = None
) -> tuple[dict[str, Any], str, Part]:
    """Returns the resource for a stream.

    Args:
        stream: The stream.
        name: The name of the resource.
        parent_of: Returns the name of the resource for the stream of a parent.
        parent: The one of several parents that it is read for.

    Returns:
        The resource, the address that its path is below, and its authenticator.

    Raises:
        Untranslatable: something in it cannot be said.
    """
    if stream.get("type") not in (None, "DeclarativeStream"):
        raise Untranslatable(f"a stream of the type {stream.get('type')}", "", stream.line)
    retriever = stream.child("retriever")
    if retriever.get("type") not in (None, "SimpleRetriever"):
        kind = str(retriever.get("class_name") or retriever.get("type"))
        cause = "an asynchronous job" if kind == "AsyncRetriever" else "a custom retriever"
        raise Untranslatable(cause, kind, retriever.line)
    _check_decoder(retriever)
    requester = retriever.child("requester")
    read = read_for(retriever, parent_of, parent)
    incremental = incremental_of(stream, read)
    names = Names(requester.get(PARAMETERS) or {}, {**read.slices, "cursor": "cursor"})
    made: dict[str, Any] = {"name": name}
    base, path = base_of(requester, names), path_of(requester, names)
    if not base:
        raise Untranslatable("a stream without an address", "", requester.line or stream.line)
    made["path"] = path or base
    made.update(request_of(requester, names))
    made["records"] = _records_of(retriever, names)
    made["paginator"], added = paginator_of(retriever, names)
    with_added(made, {**added, **read.added})
    if read.parent is not None:
        made["parent"] = read.parent
    if read.each:
        made["each"] = read.each
    if incremental:
        made["incremental"] = incremental
    made.update(rules_of(requester.child("error_handler"), names))
    made.update(_changes_of(stream, retriever, read))
    key = _key_of(stream)
    if key:
        made["mapping"] = {"id": key[0] if len(key) == 1 else key}
    return made, base if path else "", requester.child("authenticator")


def parents_of(stream: Part) -> list[Part]:
    """Returns the parents of a stream that is read for the records of each of them."""
    router = stream.child("retriever").get("partition_router")
    routers = router if isinstance(router, list) else [router]
    found = [one for one in routers if isinstance(one, Part) and "parent_stream_configs" in one]
    return found[0].children("parent_stream_configs") if len(found) == 1 else []


def read_for(retriever: Part, parent_of: Callable[[Part], str], parent: Part | None) -> Read:
    """Returns what the partition routers of a retriever say.

    Raises:
        Untranslatable: they say something that cannot be said.
    """
    read = Read()
    given = retriever.get("partition_router")
    for one in given if isinstance(given, list) else [given]:
        if not isinstance(one, Part) or not one.get("type"):
            continue
        kind = one.get("type")
        if kind == "ListPartitionRouter":
            _add_list(read, one)
        elif kind == "SubstreamPartitionRouter":
            _add_parent(read, one, parent_of, parent)
        else:
            name = str(one.get("class_name") or kind)
            raise Untranslatable("a custom partition router", name, one.line)
    return read


def _add_list(read: Read, part: Part) -> None:
    names = Names(part.get(PARAMETERS) or {})
    name = str(template_of(part.get("cursor_field"), names))
    key = re.sub(r"\W", "_", name)
    values = template_of(part.get("values"), names)
    if isinstance(values, str) and "{" not in values:
        raise Untranslatable("a list of values as text", values[:80], part.line_of("values"))
    read.each[key] = values
    read.slices[name] = f"each.{key}"
    option = part.child("request_option")
    if option:
        read.added[place_of(option, names)] = f"{{each.{key}}}"


def _add_parent(
    read: Read, part: Part, parent_of: Callable[[Part], str], chosen: Part | None
) -> None:
    configs = part.children("parent_stream_configs")
    if read.parent is not None:
        raise Untranslatable("several parents that are combined", "", part.line)
    if chosen is None and len(configs) != 1:
        raise Untranslatable("several parents", "", part.line)
    config = chosen if chosen is not None else configs[0]
    names = Names(config.get(PARAMETERS) or {})
    stream = config.child("stream")
    read.parent = parent_of(stream)
    key = str(template_of(config.get("parent_key"), names)).replace("/", ".")
    name = str(template_of(config.get("partition_field"), names))
    read.slices[name] = f"parent.{key}"
    for path in config.get("extra_fields") or []:
        steps = [str(template_of(one, names)) for one in path]
        read.slices[f"extra_fields.{'.'.join(steps)}"] = f"parent.{'.'.join(steps)}"
    above = read_for(stream.child("retriever"), parent_of, None)
    for known, code in above.slices.items():
        # The parent's own values are known where the parent's records keep them.
        if code.startswith("parent."):
            read.slices[f"parent_slice.{known}"] = f"parent.{code}"
    option = config.child("request_option")
    if option:
        read.added[place_of(option, names)] = f"{{parent.{key}}}"


def incremental_of(stream: Part, read: Read) -> dict[str, Any]:
    """Returns how a stream is read incrementally; an empty dict if it is read whole.

    Raises:
        Untranslatable: it is read in a way that `api` does not.
    """
    part = stream.child("incremental_sync")
    if not part:
        return {}
    kind = part.get("type")
    if kind not in (None, "DatetimeBasedCursor", "IncrementingCountCursor"):
        name = str(part.get("class_name") or kind)
        raise Untranslatable("a custom cursor", name, part.line)
    names = Names(part.get(PARAMETERS) or {})
    field_ = str(template_of(part.get("cursor_field"), names))
    made: dict[str, Any] = {"field": field_}
    for option, end in (("start_time_option", "start"), ("end_time_option", "end")):
        given = part.child(option)
        if given and given.get("type") == "RequestPath":
            raise Untranslatable("a time in the path of an option", "", given.line)
        if given:
            made["param" if end == "start" else "until_param"] = place_of(given, names)
    if kind == "IncrementingCountCursor":
        made["format"] = "number"
        start = template_of(part.get("start_value"), names)
        read.slices["start_time"] = "since"
        return {**made, **({} if start is None else {"start": start})}
    made["start"] = _time_of(part.get("start_datetime"), names, "max")
    end = _time_of(part.get("end_datetime"), names, "min")
    made["format"] = form_of(str(template_of(part.get("datetime_format", _DEFAULT_FORM), names)))
    if part.get("lookback_window"):
        made["lookback"] = duration_of(part["lookback_window"], names)
    asks = _asks(stream, part, made)
    if asks["end"]:
        step = part.get("step")
        made["slice"] = duration_of(step, names) if step else _ONE_SLICE
        if end is not None and not (isinstance(end, str) and _is_now(end)):
            made["end"] = end
    if not (asks["start"] or asks["end"]) and not part.get("is_client_side_incremental"):
        # Everything is asked for; the next runs leave out what is older than the last value.
        del made["start"]
    begin = str(part.get("partition_field_start") or "start_time")
    until = str(part.get("partition_field_end") or "end_time")
    read.slices.update({begin: "since", until: "until"})
    return made


def _asks(stream: Part, part: Part, made: Mapping[str, Any]) -> dict[str, bool]:
    """Returns whether requests tell the ends of the range of time."""
    text = str(stream.child("retriever").child("requester"))
    found = {}
    for end, param in (("start", "param"), ("end", "until_param")):
        name = str(part.get(f"partition_field_{end}") or f"{end}_time")
        used = re.search(rf"stream_(?:slice|interval|partition)\W+(?:get\W+)?{name}\b", text)
        found[end] = param in made or used is not None
    return found


def _is_now(text: str) -> bool:
    return re.fullmatch(r"\{=? ?(?:format_time\()?now(?:, '[^']*'\))? ?\}", text) is not None


def _time_of(value: Any, names: Names, limit: str) -> Any:
    """Returns the time at which a range begins or ends."""
    if isinstance(value, Part):
        own = Names({**names.parameters, **(value.get(PARAMETERS) or {})})
        time = _time_of(value.get("datetime"), own, limit)
        # The later of two beginnings, the earlier of two ends.
        for name, function in (("min_datetime", "max"), ("max_datetime", "min")):
            if value.get(name):
                both = [expression_of(value[one], own) for one in ("datetime", name)]
                texts = [_in_code(one) for one in both]
                same = [f"format_time({one}, 'iso')" for one in texts]
                return f"{{= {function}({', '.join(same)}) }}"
        return time
    return template_of(value, names)


def _in_code(value: Code | Const) -> str:
    return value.text if isinstance(value, Code) else repr(str(value.value))


def _records_of(retriever: Part, names: Names) -> str:
    selector = retriever.child("record_selector")
    if selector.get("type") not in (None, "RecordSelector"):
        name = str(selector.get("class_name") or selector.get("type"))
        raise Untranslatable("a custom record selector", name, selector.line)
    extractor = selector.child("extractor")
    if extractor.get("type") not in (None, "DpathExtractor"):
        name = str(extractor.get("class_name") or extractor.get("type"))
        raise Untranslatable("a custom extractor", name, extractor.line)
    if extractor.get("record_expander"):
        raise Untranslatable("an expander of records", "", extractor.line)
    own = Names({**names.parameters, **(extractor.get(PARAMETERS) or {})}, names.slices)
    given = extractor.get("field_path") or []
    found = [template_of(one, own) for one in (given if isinstance(given, list) else [given])]
    steps = [str(one) for one in found if one not in (None, "")]
    if any("{" in one for one in steps):
        raise Untranslatable("a computed path of records", ".".join(steps), extractor.line)
    return f"{'.'.join(steps)}?" if steps else "$"


def _check_decoder(retriever: Part) -> None:
    decoder = retriever.child("decoder") or retriever.child("requester").child("decoder")
    kind = decoder.get("type")
    if kind not in (None, "JsonDecoder"):
        raise Untranslatable(f"the decoder {decoder.get('class_name') or kind}", "", decoder.line)


def _key_of(stream: Part) -> list[str]:
    names = Names(stream.get(PARAMETERS) or {})
    key = template_of(stream.get("primary_key"), names)
    listed = key if isinstance(key, list) else [key]
    return [".".join(map(str, one)) if isinstance(one, list) else str(one) for one in listed if one]


def _changes_of(stream: Part, retriever: Part, read: Read) -> dict[str, Any]:
    """Returns the filter of records, and the fields that they get and lose."""
    selector = retriever.child("record_selector")
    made: dict[str, Any] = {}
    roots = {"record": "record"}
    condition = selector.child("record_filter")
    if condition:
        if condition.get("type") not in (None, "RecordFilter"):
            name = str(condition.get("class_name") or condition.get("type"))
            raise Untranslatable("a custom filter", name, condition.line)
        own = Names(condition.get(PARAMETERS) or {}, read.slices, roots)
        text = condition_of(condition.get("condition", ""), own)
        if text is False:
            text = "false"
        if text is not True:
            made["filters"] = [text]
    added: dict[str, Any] = {}
    removed: list[str] = []
    parts = [*selector.children("transformations"), *stream.children("transformations")]
    for one in parts:
        own = Names(one.get(PARAMETERS) or {}, read.slices, roots)
        kind = one.get("type")
        if kind == "AddFields":
            for part in one.children("fields"):
                path, value = _added(part, one, own)
                if any(_overlap(path, gone) for gone in removed):
                    raise Untranslatable("a field that is removed and added again", path, one.line)
                added[path] = value
        elif kind == "RemoveFields":
            if one.get("condition"):
                raise Untranslatable("a condition of removed fields", "", one.line)
            removed += [_pointer(path, own, one) for path in one.get("field_pointers") or []]
        else:
            name = str(one.get("class_name") or kind)
            cause = "a custom transformation" if one.get("class_name") else f"the change {kind}"
            raise Untranslatable(cause, name, one.line)
    if added:
        made["add_fields"] = added
    if removed:
        made["remove_fields"] = removed
    return made


def _overlap(path: str, other: str) -> bool:
    return f"{path}.".startswith(f"{other}.")


def _added(part: Part, above: Part, names: Names) -> tuple[str, Any]:
    own = Names({**names.parameters, **(part.get(PARAMETERS) or {})}, names.slices, names.roots)
    path = _pointer(part.get("path") or [], own, above)
    value = template_of(part.get("value"), own)
    kind = part.get("value_type")
    if kind == "string" and isinstance(value, int | float):
        value = str(value)
    if not above.get("condition"):
        return path, value
    condition = condition_of(above["condition"], own)
    if isinstance(condition, bool):
        raise Untranslatable("a condition that is always the same", "", above.line)
    code = expression_of(part.get("value"), own)
    text = code.text if isinstance(code, Code) else repr(code.value)
    if isinstance(code, Const) and not isinstance(code.value, str | int | float):
        raise Untranslatable("an object in a template", str(code.value)[:80], above.line)
    return path, f"{{= {text} if {condition} else record.{path} }}"


def _pointer(path: Any, names: Names, above: Part) -> str:
    steps = [str(template_of(one, names)) for one in (path if isinstance(path, list) else [path])]
    if any("{" in one or one == "**" for one in steps) or not steps:
        raise Untranslatable("a computed path of a field", ".".join(steps), above.line)
    return ".".join(steps)
