"""How many tokens a minute may be sent, counted over all processes of a machine.

It is a budget of requests whose unit is some tokens: a thousandth of the minute's.
"""

from __future__ import annotations

from contextframe_beam.connectors.http import Budget, Limit
from contextframe_beam.errors import ConfigError

_UNITS = 1000
_LEAST = 1000


class TokenBudget:
    """The tokens that may be sent in any minute.

    Args:
        per_minute: The tokens; at least 1,000.
        name: Budgets of one name are one.
        redis: The address of a Redis server that counts for several machines.

    Raises:
        ConfigError: a number that cannot be.
    """

    def __init__(self, per_minute: object, name: str, redis: str | None = None) -> None:
        whole = int(per_minute) if isinstance(per_minute, int | float) else 0
        if isinstance(per_minute, bool) or whole != per_minute or whole < _LEAST:
            raise ConfigError(
                f"budget: tokens_per_minute is {per_minute!r}; write a whole number of at least "
                f"{_LEAST}"
            )
        self.per_minute = whole
        self._unit = -(-whole // _UNITS)
        limit = Limit(whole // self._unit, 60.0)
        self._budget = Budget([limit], f"tokens of {name}", redis)

    def take(self, tokens: int) -> None:
        """Waits until so many tokens more may be sent.

        Raises:
            ConnectorError: the Redis server cannot be asked.
        """
        for _ in range(-(-tokens // self._unit)):
            self._budget.acquire()
