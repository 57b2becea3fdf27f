"""In which order the transforms stand, and what is said where they do not.

Read gives pages, mapping makes batches of records of them, enriching changes those, and writing
takes them. Beam knows what a step gives; each step says here what it takes.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import apache_beam as beam
from apache_beam.typehints import Any as Anything
from apache_beam.typehints import Union
from apache_beam.typehints.decorators import IOTypeHints
from apache_beam.typehints.typehints import is_consistent_with

from contextframe_beam.errors import ConfigError

_ORDER = (
    "the order is pipeline | ReadFromConnector(...) | MapToFrames(...) | Enrich([...]) | "
    "WriteToLance(...)"
)

_In = TypeVar("_In")
_Out = TypeVar("_Out")
_Element = TypeVar("_Element")


class Step(beam.PTransform[_In, _Out]):
    """A transform that says what it takes.

    Attributes:
        takes: The types of its elements.
        gives: The type of its results' elements.
        keeps_others: Whether it makes dead letters of elements of other types, but for those that
            another step gives.
    """

    takes: ClassVar[tuple[type, ...]]
    gives: ClassVar[type]
    keeps_others: ClassVar[bool] = False

    def default_type_hints(self) -> IOTypeHints:
        """Returns what Beam checks and passes on to the next step."""
        hints = IOTypeHints.empty().with_output_types(self.gives)
        if self.keeps_others:
            return hints
        taken = self.takes[0] if len(self.takes) == 1 else Union[self.takes]
        return hints.with_input_types(taken)

    def type_check_inputs(self, pvalueish: Any) -> None:
        """Refuses what it does not take.

        Raises:
            ConfigError: it stands at a wrong place.
        """
        name = type(self).__name__
        if not isinstance(pvalueish, beam.PCollection):
            raise ConfigError(f"{name} cannot begin a pipeline; {_ORDER}")
        given = pvalueish.element_type
        if given is not None and given is not Anything and not self._accepts(given):
            raise _misplaced(name, self.takes, given)

    def _accepts(self, given: Any) -> bool:
        if self.keeps_others and not _is_of_a_step(given):
            return True
        # In either direction, because what is declared may be wider or narrower than what comes.
        return any(
            is_consistent_with(given, one) or is_consistent_with(one, given) for one in self.takes
        )


def required(element: Any, kind: type[_Element], step: str) -> _Element:
    """Returns an element of a collection whose type nobody declared.

    Raises:
        ConfigError: it is not what the step takes.
    """
    if isinstance(element, kind):
        return element
    raise _misplaced(step, (kind,), type(element))


def _is_of_a_step(kind: Any) -> bool:
    return str(getattr(kind, "__module__", "")).partition(".")[0] == __name__.partition(".")[0]


def _misplaced(step: str, takes: tuple[type, ...], given: Any) -> ConfigError:
    taken = " or ".join(kind.__name__ for kind in takes)
    shown = given.__name__ if isinstance(given, type) else str(given)
    return ConfigError(f"{step} takes {taken}, and the step before it gives {shown}; {_ORDER}")
