"""The error handlers of a manifest as rules about answers of `api`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contextframe_beam.connectors.translate.jinja import condition_of, expression_of
from contextframe_beam.connectors.translate.manifest import Part
from contextframe_beam.connectors.translate.values import Const, Names, Untranslatable

#: What a template of an error handler can name.
ANSWER_ROOTS = {"response": "response", "headers": "headers"}

# What each action becomes; an answer that counts as a success has no records in its error.
_RULES = {
    "IGNORE": "ignore_when",
    "SUCCESS": "ignore_when",
    "RETRY": "retry_when",
    "RATE_LIMITED": "retry_when",
    "FAIL": "error_when",
    "REFRESH_TOKEN": "renew_when",
}


def rules_of(handler: Part, names: Names) -> dict[str, list[dict[str, Any]]]:
    """Returns the rules that an error handler consists of.

    Args:
        handler: The error handler of a requester.
        names: What the names of its templates stand for.

    Raises:
        Untranslatable: it decides in a way that `api` does not.
    """
    if not handler:
        return {}
    kind = handler.get("type", "DefaultErrorHandler")
    if kind == "CompositeErrorHandler":
        found: dict[str, list[dict[str, Any]]] = {}
        for one in handler.children("error_handlers"):
            for name, rules in rules_of(one, names).items():
                found.setdefault(name, []).extend(rules)
        return found
    if kind != "DefaultErrorHandler":
        name = str(handler.get("class_name") or kind)
        raise Untranslatable("a custom error handler", name, handler.line)
    own = Names(names.parameters, {}, ANSWER_ROOTS)
    wait = _wait_of(handler, own)
    found = {}
    for one in handler.children("response_filters"):
        name, rules = _rules_of(one, own, wait)
        found.setdefault(name, []).extend(rules)
    return {name: rules for name, rules in found.items() if rules}


def _rules_of(part: Part, names: Names, wait: Any) -> tuple[str, list[dict[str, Any]]]:
    action = str(part.get("action") or "FAIL").upper()
    name = _RULES.get(action)
    if name is None:
        raise Untranslatable(f"the action {action} of an error handler", "", part.line)
    rules: list[dict[str, Any]] = []
    codes = sorted({int(code) for code in part.get("http_codes") or []})
    # Any other status fails or is tried again without a rule.
    codes = [code for code in codes if name != "error_when" or code < 400]
    if codes:
        rules.append({"status": codes[0] if len(codes) == 1 else codes})
    if part.get("error_message_contains"):
        text = expression_of(part["error_message_contains"], names)
        if not isinstance(text, Const):
            raise Untranslatable("an error text that is computed", "", part.line)
        rules.append({"status": ["4xx", "5xx"], "text": str(text.value)})
    if part.get("predicate"):
        condition = condition_of(part["predicate"], names)
        if condition is True:
            raise Untranslatable("a predicate that always holds", "", part.line)
        if condition:
            rules.append({"when": condition})
    if name == "retry_when" and wait is not None:
        rules = [{**one, "wait": wait} for one in rules]
    return name, rules


def _wait_of(handler: Part, names: Names) -> Any:
    """Returns how long to wait before a request is sent again, if the handler has a fixed time."""
    for one in handler.children("backoff_strategies"):
        kind = one.get("type")
        if kind == "ConstantBackoffStrategy":
            seconds = expression_of(one.get("backoff_time_in_seconds"), names)
            if isinstance(seconds, Const):
                return float(seconds.value) if seconds.value else None
        elif kind not in _WAITS:
            name = str(one.get("class_name") or kind)
            raise Untranslatable("a custom wait", name, one.line)
    return None


# The client reads the headers of limits itself, and waits longer each time.
_WAITS: Mapping[Any, str] = dict.fromkeys(
    ("ExponentialBackoffStrategy", "WaitTimeFromHeader", "WaitUntilTimeFromHeader"), ""
)
