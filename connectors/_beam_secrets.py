"""References to secrets as Apache Beam's `Secret` objects; imported only where Beam is wanted."""

from __future__ import annotations

from apache_beam.utils.secret import GcpSecret, Secret

from contextframe_beam.connectors import secrets
from contextframe_beam.errors import SecretError


class _ReferenceSecret(Secret):
    """A secret that is read where its bytes are asked for; pickles as its reference."""

    prefix = ""

    def __init__(self, where: str) -> None:
        Secret.__init__(self)
        self.reference = f"{self.prefix}:{where}"

    def get_secret_bytes(self) -> bytes:
        """Returns the value as UTF-8.

        Raises:
            SecretError: it cannot be resolved.
        """
        return secrets.resolve(self.reference).encode()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reference!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ReferenceSecret) and self.reference == other.reference

    def __hash__(self) -> int:
        return hash(self.reference)


class EnvSecret(_ReferenceSecret):
    """The value of an environment variable of the process that uses it."""

    prefix = "env"


class FileSecret(_ReferenceSecret):
    """The content of a file on the machine that uses it, without the newline at its end."""

    prefix = "file"


class KeyringSecret(_ReferenceSecret):
    """An entry of the keyring of the machine that uses it."""

    prefix = "keyring"


def beam_secret(reference: str) -> Secret:
    """Returns the `Secret` for a reference.

    Raises:
        SecretError: `reference` is not a reference.
    """
    kind, _, where = reference.partition(":")
    if not secrets.is_reference(reference):
        raise SecretError(f"{reference!r} is not a reference to a secret")
    if kind == "env":
        return EnvSecret(where)
    if kind == "file":
        return FileSecret(where)
    if kind == "keyring":
        return KeyringSecret(where)
    if "/versions/" not in where:
        where += "/versions/latest"
    return GcpSecret(where)
