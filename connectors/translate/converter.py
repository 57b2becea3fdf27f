"""Converts the syntax tree of a Jinja template into expressions of ours, node by node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contextframe_beam.connectors.translate.values import (
    UNITS,
    Code,
    Const,
    Names,
    Ref,
    Untranslatable,
    Value,
    bare,
    closed,
    form_of,
    function,
    path_code,
    quoted,
    seconds_of,
    shown_duration,
    written,
)

if TYPE_CHECKING:
    from jinja2 import nodes


class Converter:
    """Converts nodes.

    Args:
        names: What the names of the template stand for.
        local: The values of names that the template itself sets.
    """

    def __init__(self, names: Names, local: dict[str, Value]) -> None:
        self.names = names
        self.local = local
        self.beside = False  # whether values stand beside other text

    def body(self, body: Sequence[nodes.Node]) -> list[Const | Code]:
        """Returns the parts that some nodes give as output."""
        from jinja2 import nodes

        parts: list[Const | Code] = []
        self.beside = sum(len(one.nodes) for one in body if isinstance(one, nodes.Output)) > 1
        for node in body:
            if isinstance(node, nodes.Output):
                for one in node.nodes:
                    if isinstance(one, nodes.TemplateData):
                        parts.append(Const(one.data))
                    else:
                        parts.append(self.value(one))
            elif isinstance(node, nodes.Assign) and isinstance(node.target, nodes.Name):
                self.local[node.target.name] = self.raw(node.node)
            elif isinstance(node, nodes.If):
                parts.append(self._branches(node))
            else:
                raise Untranslatable(f"{type(node).__name__.lower()} in a template")
        if any(isinstance(one, Code) for one in parts) and any(
            isinstance(node, nodes.Assign | nodes.If) for node in body
        ):
            # White space between the statements is no text of its own.
            parts = [one for one in parts if isinstance(one, Code) or not str(one.value).isspace()]
        return parts

    def _branches(self, node: nodes.If) -> Const | Code:
        test = self.value(node.test)
        chosen = self._one(node.body)
        other: Value = Const("")
        if node.elif_:
            first, *rest = node.elif_
            other = self._branches(_with_rest(first, rest, node.else_))
        elif node.else_:
            other = self._one(node.else_)
        return self._choice(test, chosen, other)

    def _one(self, body: Sequence[nodes.Node]) -> Const | Code:
        parts = [
            one
            for one in Converter(self.names, self.local).body(body)
            if isinstance(one, Code) or str(one.value).strip()
        ]
        if len(parts) > 1:
            return function("text", *parts)
        one = parts[0] if parts else Const("")
        return (
            Const(one.value.strip())
            if isinstance(one, Const) and isinstance(one.value, str)
            else one
        )

    def value(self, node: nodes.Node) -> Const | Code:
        """Returns the value of a node."""
        found = self.raw(node)
        if isinstance(found, Ref):
            made = self.names.code(found)
            assert not isinstance(made, Ref)
            return made
        return found

    def raw(self, node: nodes.Node) -> Value:
        """Returns the value of a node; a name is not resolved yet."""
        convert = _NODES.get(type(node).__name__)
        if convert is None:
            raise Untranslatable(f"{type(node).__name__.lower()} in a template")
        return convert(self, node)

    def name(self, node: Any) -> Value:
        if node.name in self.local:
            return self.local[node.name]
        return Ref(node.name)

    def below(self, holder: Value, key: Value) -> Value:
        """Returns an element of a value."""
        if (
            isinstance(key, Const)
            and isinstance(key.value, int | str)
            and not isinstance(key.value, bool)
        ):
            if isinstance(holder, Ref):
                if isinstance(key.value, int) and key.value < 0:
                    return Code(f"{self._code(holder)}[{key.value}]", is_simple=True)
                return Ref(holder.root, (*holder.path, str(key.value)))
            if isinstance(holder, Const):
                return Const(_element(holder.value, key.value))
            if isinstance(key.value, str):
                return Code(path_code(closed(holder), [key.value]), is_simple=True)
            return Code(f"{closed(holder)}[{bare(key)}]", is_simple=True)
        if isinstance(holder, Const) and isinstance(holder.value, Mapping):
            return self._chosen_from(holder.value, key)
        return Code(f"{self._code(holder)}[{self._code(key)}]", is_simple=True)

    def _chosen_from(self, values: Mapping[str, Any], key: Value) -> Const | Code:
        """Returns the value of a table whose key is computed."""
        asked, found = self._code(key), bare(Const(None))
        for name, value in reversed(list(values.items())):
            found = f"{bare(Const(value))} if {asked} == {quoted(name)} else {found}"
        return Code(found)

    def _code(self, value: Value) -> str:
        return closed(self.names.code(value) if isinstance(value, Ref) else value)

    def attribute(self, node: Any) -> Value:
        return self.below(self.raw(node.node), Const(node.attr))

    def item(self, node: Any) -> Value:
        from jinja2 import nodes

        if isinstance(node.arg, nodes.Slice):
            if node.arg.step is not None:
                raise Untranslatable("a step of a slice in a template")
            ends = [
                "" if one is None else bare(self.value(one))
                for one in (node.arg.start, node.arg.stop)
            ]
            return Code(f"{self._code(self.raw(node.node))}[{ends[0]}:{ends[1]}]", is_simple=True)
        return self.below(self.raw(node.node), self.value(node.arg))

    def call(self, node: Any) -> Value:
        from jinja2 import nodes

        called = node.node
        if isinstance(called, nodes.Name):
            function = _FUNCTIONS.get(called.name)
            if function is None:
                raise Untranslatable(f"the function {called.name} in a template")
            return function(self, node)
        if not isinstance(called, nodes.Getattr):
            raise Untranslatable("a call in a template")
        if called.attr == "get":
            return self._get(node)
        arguments = [self.value(one) for one in node.args]
        return self._method(called.attr, self.value(called.node), arguments, node)

    def _get(self, node: Any) -> Value:
        holder = self.raw(node.node.node)
        if not node.args:
            raise Untranslatable("a call of get in a template")
        found = self.below(holder, self.value(node.args[0]))
        if len(node.args) < 2:
            return found
        other = self.value(node.args[1])
        if other in (Const({}), Const(None)):
            return found
        if isinstance(found, Ref):
            found = self.names.code(found)
        if isinstance(found, Const):
            return other if found.value is None else found
        return function("default", found, other)

    def _method(
        self, name: str, value: Const | Code, given: list[Const | Code], node: Any
    ) -> Value:
        if name == "strftime" and given:
            return self.formatted(value, given[0])
        if name == "isoformat":
            form = "date" if isinstance(value, Code) and value.text.endswith("'date')") else "iso"
            return self.formatted(value, Const(form))
        if name == "timestamp":
            return self.formatted(value, Const("epoch"))
        if name == "date":
            return Code(self.formatted(value, Const("date")).text, is_time=True, is_simple=True)
        if name == "join" and len(given) == 1:
            return function("join", given[0], value)
        renamed = {
            "split": "split",
            "replace": "replace",
            "lower": "lower",
            "upper": "upper",
            "strip": "trim",
            "startswith": "starts_with",
            "endswith": "ends_with",
        }.get(name)
        if renamed is None or (name == "split" and len(given) != 1):
            raise Untranslatable(f"the method {name} in a template")
        if isinstance(value, Const) and all(isinstance(one, Const) for one in given):
            return Const(getattr(str(value.value), name)(*(one.value for one in given)))  # type: ignore[union-attr]
        return function(renamed, value, *given)

    def formatted(self, time: Const | Code, form: Const | Code) -> Code:
        """Returns a time in a form."""
        named = Const(form_of(form.value)) if isinstance(form, Const) else form
        return function("format_time", time, named)

    def filter(self, node: Any) -> Value:
        value = self.value(node.node)
        given = [self.value(one) for one in node.args]
        name = node.name
        if name in ("string", "list", "trim", "safe") and isinstance(value, Const):
            return value if name != "string" else Const(written(value.value))
        if name == "list" or name == "safe":
            return value
        if name in ("default", "d"):
            if len(given) > 1 or node.kwargs:
                return self._either("or", [value, given[0]])
            if isinstance(value, Const):
                return given[0] if value.value is None else value
            return function("default", value, *given[:1])
        if name == "hash":
            return function("hash", value, *(given or [Const("md5")]))
        renamed = {
            "string": "text",
            "int": "integer",
            "float": "number",
            "length": "length",
            "count": "length",
            "base64encode": "base64",
            "tojson": "json",
            "join": "join",
            "lower": "lower",
            "upper": "upper",
            "first": "first",
            "last": "last",
            "trim": "trim",
            "replace": "replace",
            "round": "round",
            "urlencode": "url_encode",
            "min": "min",
            "max": "max",
        }.get(name)
        if renamed is None:
            raise Untranslatable(f"the filter {name} in a template")
        if isinstance(value, Const) and name == "int":
            return Const(int(value.value or 0))
        return function(renamed, value, *given)

    def test(self, node: Any) -> Value:
        value = self.value(node.node)
        same = {"none": "null", "false": "false", "true": "true"}
        if isinstance(value, Const):
            known = {"none": value.value is None, "defined": value.value is not None}
            if node.name in known:
                return Const(known[node.name])
        if node.name in same:
            return Code(f"{closed(value)} == {same[node.name]}")
        if node.name == "defined":
            return Code(f"{closed(value)} != null")
        raise Untranslatable(f"the test {node.name} in a template")

    def negated(self, node: Any) -> Value:
        from jinja2 import nodes

        value = self.value(node.node)
        if isinstance(value, Const):
            return Const(not value.value)
        if isinstance(node.node, nodes.Test) and " == " in value.text:
            return Code(value.text.replace(" == ", " != ", 1))
        if isinstance(node.node, nodes.Test) and value.text.endswith(" != null"):
            return Code(value.text.replace(" != null", " == null"))
        return Code(f"not {closed(value)}")

    def both(self, node: Any) -> Value:
        return self._either("and", [self.value(node.left), self.value(node.right)])

    def either(self, node: Any) -> Value:
        return self._either("or", [self.value(node.left), self.value(node.right)])

    def _either(self, word: str, values: list[Const | Code]) -> Const | Code:
        left, right = values
        if isinstance(left, Const):
            return right if bool(left.value) is (word == "and") else left
        return Code(f"{closed(left)} {word} {closed(right)}")

    def conditional(self, node: Any) -> Value:
        nothing = Const("" if self.beside else None)
        other = nothing if node.expr2 is None else self.value(node.expr2)
        test = self.value(node.test)
        if isinstance(test, Const):
            return self.value(node.expr1) if test.value else other
        return self._choice(test, self.value(node.expr1), other)

    def _choice(self, test: Const | Code, value: Const | Code, other: Value) -> Const | Code:
        assert not isinstance(other, Ref)
        if isinstance(test, Const):
            return value if test.value else other
        is_time = any(isinstance(one, Code) and one.is_time for one in (value, other))
        return Code(f"{closed(value)} if {closed(test)} else {closed(other)}", is_time=is_time)

    def compared(self, node: Any) -> Value:
        signs = {"eq": "==", "ne": "!=", "gt": ">", "gteq": ">=", "lt": "<", "lteq": "<="}
        words = {**signs, "in": "in", "notin": "not in"}
        left = self.value(node.expr)
        parts = []
        for one in node.ops:
            right = self.value(one.expr)
            parts.append(f"{closed(left)} {words[one.op]} {closed(right)}")
            if isinstance(left, Const) and isinstance(right, Const) and one.op in ("eq", "ne"):
                return Const((left.value == right.value) is (one.op == "eq"))
            left = right
        return Code(" and ".join(parts))

    def computed(self, node: Any) -> Value:
        sign = {"Add": "+", "Sub": "-", "Mul": "*", "Div": "/", "FloorDiv": "//", "Mod": "%"}[
            type(node).__name__
        ]
        moved = self._moved(node, sign)
        if moved is not None:
            return moved
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(left, Const) and isinstance(right, Const) and sign == "+":
            return Const(left.value + right.value)
        return Code(f"{closed(left)} {sign} {closed(right)}")

    def _moved(self, node: Any, sign: str) -> Code | None:
        """Returns a time moved by a duration; None if the node is something else."""
        from jinja2 import nodes

        call = node.right
        if (
            sign not in "+-"
            or not isinstance(call, nodes.Call)
            or not isinstance(call.node, nodes.Name)
        ):
            return None
        if call.node.name != "duration":
            return None
        before = "-" if sign == "-" else ""
        given = self._duration(call.args[0])
        if isinstance(given, str):
            moved: Const | Code = Const(f"{before}{given}")
        else:
            moved = function("text", Const(before), given[0], Const(given[1]))
        time = function("shift", self.value(node.left), moved)
        return Code(time.text, is_time=True, is_simple=True)

    def _duration(self, node: Any) -> str | tuple[Const | Code, str]:
        """Returns a duration, or its number and its unit."""
        parts = _pieces(node)
        values = [self.value(one) for one in parts]
        if len(values) == 1 and isinstance(values[0], Const):
            seconds = seconds_of(str(values[0].value))
            if seconds is not None:
                return shown_duration(seconds)
        if len(values) == 3 and isinstance(values[0], Const) and isinstance(values[2], Const):
            begin, unit = values[0].value, values[2].value
            if (begin, unit) in (("P", "D"), ("P", "W"), ("PT", "H"), ("PT", "M"), ("PT", "S")):
                return values[1], UNITS[unit]
        raise Untranslatable("a duration in a template")

    def joined(self, node: Any) -> Value:
        values = [self.value(one) for one in node.nodes]
        if all(isinstance(one, Const) for one in values):
            return Const("".join(written(one.value) for one in values))  # type: ignore[union-attr]
        return function("text", *values)

    def minus(self, node: Any) -> Value:
        value = self.value(node.node)
        return Const(-value.value) if isinstance(value, Const) else Code(f"-{closed(value)}")

    def listed(self, node: Any) -> Value:
        values = [self.value(one) for one in node.items]
        if all(isinstance(one, Const) for one in values):
            return Const([one.value for one in values])  # type: ignore[union-attr]
        return Code(f"[{', '.join(map(bare, values))}]", is_simple=True)

    def object(self, node: Any) -> Value:
        pairs = [(self.value(one.key), self.value(one.value)) for one in node.items]
        if all(isinstance(one, Const) for pair in pairs for one in pair):
            return Const({str(k.value): v.value for k, v in pairs})  # type: ignore[union-attr]
        raise Untranslatable("an object in a template")


_NODES: Mapping[str, Callable[[Converter, Any], Value]] = {
    "Const": lambda self, node: Const(node.value),
    "TemplateData": lambda self, node: Const(node.data),
    "Name": Converter.name,
    "Getattr": Converter.attribute,
    "Getitem": Converter.item,
    "Call": Converter.call,
    "Filter": Converter.filter,
    "Test": Converter.test,
    "Not": Converter.negated,
    "And": Converter.both,
    "Or": Converter.either,
    "CondExpr": Converter.conditional,
    "Compare": Converter.compared,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "FloorDiv", "Mod"), Converter.computed),
    "Concat": Converter.joined,
    "Neg": Converter.minus,
    "Pos": lambda self, node: self.value(node.node),
    "List": Converter.listed,
    "Tuple": Converter.listed,
    "Dict": Converter.object,
}


def _now(self: Converter, node: Any) -> Code:
    return Code("now", is_time=True, is_simple=True)


def _today(self: Converter, node: Any) -> Code:
    return Code("format_time(now, 'date')", is_time=True, is_simple=True)


def _format_datetime(self: Converter, node: Any) -> Code:
    time, form, *_ = [self.value(one) for one in node.args]
    return self.formatted(time, form)


def _timestamp(self: Converter, node: Any) -> Code:
    return self.formatted(self.value(node.args[0]), Const("epoch"))


def _same(self: Converter, node: Any) -> Const | Code:
    return self.value(node.args[0])


def _day_delta(self: Converter, node: Any) -> Code:
    given = {**dict(zip(("days", "format"), node.args, strict=False))}
    given.update({one.key.removeprefix("num_"): one.value for one in node.kwargs})
    if "days" not in given:
        raise Untranslatable("a call of day_delta in a template")
    days = self.value(given["days"])
    moved = (
        Const(f"{days.value}d") if isinstance(days, Const) else function("text", days, Const("d"))
    )
    time = function("shift", Code("now", is_simple=True), moved)
    form = self.value(given["format"]) if "format" in given else Const("iso")
    return self.formatted(time, form)


def _extreme(name: str) -> Callable[[Converter, Any], Code]:
    return lambda self, node: function(name, *(self.value(one) for one in node.args))


_FUNCTIONS: Mapping[str, Callable[[Converter, Any], Value]] = {
    "now_utc": _now,
    "today_utc": _today,
    "today_with_timezone": _today,
    "format_datetime": _format_datetime,
    "timestamp": _timestamp,
    "str_to_datetime": _same,
    "day_delta": _day_delta,
    "max": _extreme("max"),
    "min": _extreme("min"),
}


def _pieces(node: Any) -> list[Any]:
    """Returns the values that a node joins to one text."""
    from jinja2 import nodes

    if isinstance(node, nodes.Add):
        return [*_pieces(node.left), *_pieces(node.right)]
    if isinstance(node, nodes.Concat):
        return [one for part in node.nodes for one in _pieces(part)]
    if isinstance(node, nodes.Filter) and node.name == "string":
        return _pieces(node.node)
    return [node]


def _element(holder: Any, key: Any) -> Any:
    if isinstance(holder, Mapping):
        return holder.get(str(key))
    if isinstance(holder, list | str) and isinstance(key, int):
        return holder[key] if -len(holder) <= key < len(holder) else None
    return None


def _with_rest(first: Any, rest: list[Any], other: list[Any]) -> Any:
    from jinja2 import nodes

    return nodes.If(first.test, first.body, rest, other)
