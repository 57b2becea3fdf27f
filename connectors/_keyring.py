"""The system's keyring behind references such as `keyring:SERVICE/NAME`; its errors are ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from contextframe_beam.errors import ConfigError, SecretError

#: The service of references that name none.
SERVICE = "contextframe-beam"


def read(reference: str) -> str:
    """Returns what the keyring holds; "" when there is nothing.

    Raises:
        ConfigError: the library is not installed.
        SecretError: the keyring cannot be asked.
    """
    found = _asked(reference, lambda keyring, entry: keyring.get_password(*entry))
    return "" if found is None else str(found)


def write(reference: str, text: str) -> None:
    """Stores a text.

    Raises:
        ConfigError: the library is not installed.
        SecretError: the keyring cannot be asked.
    """
    _asked(reference, lambda keyring, entry: keyring.set_password(*entry, text))


def _asked(reference: str, ask: Callable[[Any, tuple[str, str]], Any]) -> Any:
    from contextframe_beam.connectors.secrets import redact

    try:
        import keyring
    except ImportError:
        raise ConfigError(
            f"{reference} needs the keyring library; install contextframe-beam[keyring]"
        ) from None
    service, _, name = reference.partition(":")[2].rpartition("/")
    try:
        return ask(keyring, (service or SERVICE, name))
    except keyring.errors.KeyringError as error:
        message = redact(str(error))
    raise SecretError(f"the keyring cannot be asked for {reference} ({message})")
