"""Settings in messages, as the options that they are on the command line.

A message speaks of a setting as Python does: `mode="upsert"` and `full=True` with a value, and the
name in backquotes without one. Here they become `--mode upsert`, `--full`, and the option's name.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

_SETTING = re.compile(
    r"""(?<![^\s(])  # not within a word or an address
    (?:`(?P<named>\w+)`|(?P<given>\w+)=(?:"(?P<value>[^"]*)"|True\b))""",
    re.VERBOSE,
)


def in_flags(text: str, flags: Mapping[str, str]) -> str:
    """Returns a message in which settings are options; what is no option stays as it is.

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
