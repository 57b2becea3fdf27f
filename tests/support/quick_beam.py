"""Lets Beam keep what it finds out about code, instead of looking at it anew for each pipeline.

Half of the processor time of a small run in one process goes into that: each class of DoFn is
inspected 60 times, each signature 20 times, each source text once, and a hundred parsers of options
are built. What Beam finds is the same each time, so that runs do the same with and without this.
The same holds for Python, which parses a whole module to find the source of one class of it.
"""

from __future__ import annotations

import argparse
import bz2
import inspect
from collections.abc import Callable
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary

import pytest


def keep_what_beam_finds(patch: pytest.MonkeyPatch) -> None:
    """Changes Beam in this process, until `patch` is undone."""
    from apache_beam.internal import cloudpickle_pickler
    from apache_beam.options import pipeline_options
    from apache_beam.transforms import core, ptransform, userstate
    from apache_beam.typehints import decorators

    patch.setattr(userstate, "get_dofn_specs", _specs_of(userstate.get_dofn_specs))
    signature_of = _signature_of(decorators.get_signature)
    for module in (decorators, core, ptransform):
        patch.setattr(module, "get_signature", signature_of)
    check = "_check_fn_use_yield_and_return"
    patch.setattr(core, check, _once_for_each_code(getattr(core, check)))
    parser = pipeline_options._BeamArgumentParser
    patch.setattr(parser, "add_argument", _add_argument, raising=False)
    patch.setattr(inspect, "findsource", _source_of(inspect.findsource))
    patch.setattr(argparse, "_", str)  # it looks for files of translations, for each parser
    # The highest level fills a megabyte for each of the small texts that are packed.
    packs = SimpleNamespace(
        compress=lambda text, compresslevel: bz2.compress(text, 1), decompress=bz2.decompress
    )
    patch.setattr(cloudpickle_pickler, "bz2", packs)


def _specs_of(find: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns `find`, which looks for states and timers, for each class of DoFn once."""
    known: dict[type, Any] = {}

    def specs_of(dofn: Any) -> Any:
        if any(isinstance(value, MethodType) for value in vars(dofn).values()):
            return find(dofn)
        if type(dofn) not in known:
            known[type(dofn)] = find(dofn)
        states, timers = known[type(dofn)]
        return set(states), set(timers)

    return specs_of


def _signature_of(find: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns `find`, which inspects signatures, for each function once, and once as a method."""
    of_functions: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
    of_methods: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def signature_of(function: Any) -> Any:
        known, code = of_functions, function
        if isinstance(function, MethodType):
            known, code = of_methods, function.__func__
        if not isinstance(code, FunctionType):
            return find(function)
        if code not in known:
            known[code] = find(function)
        return known[code]

    return signature_of


def _source_of(find: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns `find`, which finds the lines of a source, for each class once."""
    known: WeakKeyDictionary[type, Any] = WeakKeyDictionary()

    def source_of(found: Any) -> Any:
        if not inspect.isclass(found):
            return find(found)
        if found not in known:
            known[found] = find(found)
        return known[found]

    return source_of


def _once_for_each_code(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    known: dict[Any, bool] = {}

    def checked(function: Any) -> bool:
        code = getattr(function, "__code__", None)
        if code is None:
            return check(function)
        if code not in known:
            known[code] = check(function)
        return known[code]

    return checked


class _NoFormatter:
    """Stands for the formatter that only checks whether help of an option could be shown."""

    def _format_args(self, *_: Any) -> None:
        pass


def _add_argument(parser: Any, *names: Any, **settings: Any) -> Any:
    parser._get_formatter = _NoFormatter
    try:
        return argparse.ArgumentParser.add_argument(parser, *names, **settings)
    finally:
        del parser._get_formatter
