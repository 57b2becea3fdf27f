"""How many examples a law is tried on: some in `make test`, all in `make soak`."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

THOROUGH = "thorough"
_FEWEST = 30

settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=_FEWEST,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile(
    THOROUGH, settings.get_profile("repeatable"), derandomize=False, max_examples=400
)


def examples(count: int, few: int | None = None) -> int:
    """Returns `count` in `make soak`, and otherwise `few`: an eighth of it, and at least 30.

    Args:
        count: How many examples show that a law holds.
        few: How many show it often enough where each takes a run, or several.
    """
    if settings.get_current_profile_name() == THOROUGH:
        return count
    return few or max(_FEWEST, count // 8)
