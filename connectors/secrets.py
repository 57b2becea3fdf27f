"""References to secrets: `env:NAME` travels, its value never does.

A reference is a text of one of four forms:

* `env:NAME`: an environment variable of the process that uses it,
* `file:PATH`: the content of a file on the machine that uses it (`file://...` is a URL, not this),
* `keyring:[SERVICE/]NAME`: an entry of the system's keyring, for work on one's own machine,
* `gcp-secret:projects/P/secrets/S[/versions/V]`: Google Secret Manager.

As an argument of a connector it becomes a `SecretReference`, which turns into its value when it is
used as text. `redact` knows every value that was resolved in a process, and removes it from
messages, dead letters and logs.
"""

from __future__ import annotations

import base64
import html
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, SupportsIndex
from urllib.parse import quote_plus, unquote, unquote_plus

from contextframe_beam.connectors.plain_secrets import (
    credentials_in,
    has_credentials,
    looks_secret,
    plain_forms,
    without_credentials,
)
from contextframe_beam.connectors.shared_files import write_private
from contextframe_beam.errors import ConfigError, SecretError

_REFERENCE = re.compile(r"(?:env:[^\s=]+|file:(?!//)\S[^\n]*|keyring:\S+|gcp-secret:\S+)\Z")
#: Seconds after which a secret in a file or in Secret Manager is read again, so that a long-lived
#: worker gets a rotated secret.
CACHE_SECONDS = 60.0
#: Shorter values are too common in ordinary text to be removed from it.
SHORTEST_REDACTED = 4
#: How many values are remembered; the oldest are forgotten first.
MOST_REDACTED = 500

# A secret with several lines is also removed line by line, because some code prints it so.
_SHORTEST_LINE = 16
_MOST_ENCODINGS = 3
# The service of keyring entries without a service.
_KEYRING_SERVICE = "contextframe-beam"
# How the variables of object stores begin.
_STORES = ("AWS_", "AZURE_", "GOOGLE_", "GCS_", "OSS_", "R2_", "MINIO_")

_lock = threading.Lock()
_cache: dict[str, tuple[float, str]] = {}
_labels: dict[str, str] = {}
_plain_forms: tuple[tuple[str, str], ...] = ()
_base64_forms: tuple[tuple[str, str], ...] = ()


def is_reference(text: object) -> bool:
    """Returns whether `text` is a reference to a secret, such as `env:API_KEY`."""
    return isinstance(text, str) and _REFERENCE.match(text) is not None


def resolve(reference: str) -> str:
    """Returns the value of a reference and remembers it for `redact`.

    Values from files, the keyring and Secret Manager are read again after `CACHE_SECONDS`.

    Raises:
        SecretError: there is no such value, it cannot be read, or it is empty.
    """
    name = str.__str__(reference)
    kind, _, where = name.partition(":")
    if not is_reference(name):
        raise SecretError(
            f"{name!r} is not a reference to a secret; write env:NAME, file:PATH, keyring:NAME "
            "or gcp-secret:projects/P/secrets/S"
        )
    if kind == "env":
        value = _from_environment(where)
    else:
        cached = _cache.get(name)
        if cached is not None and time.monotonic() < cached[0]:
            register(cached[1], name)
            return cached[1]
        if kind == "keyring":
            value = read_keyring(name)
        else:
            value = _from_file(where) if kind == "file" else _from_secret_manager(name, where)
        _cache[name] = (time.monotonic() + CACHE_SECONDS, value)
    if not value:
        raise SecretError(f"the secret {name} is empty; give it a value")
    register(value, name)
    return value


def register(value: str, label: str = "***") -> None:
    """Makes `redact` replace `value` by `label` in this process from now on.

    Args:
        value: A secret in plain text; values shorter than 4 characters are not replaced.
        label: The text in its place: its reference, if there is one.
    """
    if is_reference(value):
        return
    for part in _parts(value):
        _register(part, label)


def _register(value: str, label: str) -> None:
    global _plain_forms, _base64_forms
    if len(value) < SHORTEST_REDACTED or _labels.get(value) == label:
        return
    with _lock:
        if label == "***" and value in _labels:
            return
        _labels[value] = label
        while len(_labels) > MOST_REDACTED:
            del _labels[next(iter(_labels))]
        known = list(_labels.items())
        plain = {form: name for secret, name in known for form in _written_forms(secret)}
        _plain_forms = tuple(sorted(plain.items(), key=lambda pair: -len(pair[0])))
        encoded = {form: name for secret, name in known for form in _base64_cores(secret)}
        _base64_forms = tuple(encoded.items())


def redact(text: str) -> str:
    """Returns `text` without secrets, for people and logs.

    Every secret that this process has used becomes its reference. Text that looks like a credential
    (a password in an address, a signature in a query, a key in a connection string) becomes `***`.
    It finds a value as it is, percent-encoded in any way, as a JSON or Python literal, in HTML, and
    inside base64 (a `Basic` authorization).
    """
    return without_credentials(without_known(text))


def without_known(text: str) -> str:
    """Returns `text` with every secret that this process has used replaced by its reference."""
    for form, label in _plain_forms:
        if form in text:
            text = text.replace(form, label)
    if "%" in text:
        text = _without_encoded(text)
    for core, label in _base64_forms:
        if core in text:
            whole = rf"[A-Za-z0-9+/_\-]*{re.escape(core)}[A-Za-z0-9+/_\-]*={{0,2}}"
            text = re.sub(whole, label.replace("\\", r"\\"), text)
    return text


def redacted(value: Any) -> Any:
    """Returns JSON values with all texts in them redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redacted(element) for key, element in value.items()}
    if isinstance(value, list):
        return [redacted(element) for element in value]
    return value


class RedactingFilter(logging.Filter):
    """Removes secrets from log records: message, arguments, traceback.

    Add it to a handler, so that it sees the records of all loggers.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Redacts the record in place and lets it pass."""
        try:
            message = record.getMessage()
        except Exception as error:
            # A handler would report the mistake with the plain arguments.
            message = f"{record.msg} {record.args} (which do not fit: {error})"
        record.msg, record.args = redact(message), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            whole, record.exc_text = record.exc_text, redact(record.exc_text)
            if record.exc_text != whole:
                record.exc_info = None  # some handlers format it themselves
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        return True


class SecretReference(str):
    """A text that holds a reference and acts as its value when it is used as text.

    `repr`, pickling, comparison and hashing see the reference. Formatting, concatenation, encoding
    and the methods of `str` see the value. C code that reads the characters directly (such as
    `json.dumps` or `str.join`) sees the reference, so a mistake shows the reference rather than
    the secret. `resolved` turns references inside containers into plain values.
    """

    __slots__ = ()

    @property
    def reference(self) -> str:
        """The reference itself, as plain text."""
        return str.__str__(self)

    def get(self) -> str:
        """Returns the value.

        Raises:
            SecretError: it cannot be resolved.
        """
        return resolve(self)

    def __repr__(self) -> str:
        return str.__repr__(self.reference)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return SecretReference, (self.reference,)

    def __str__(self) -> str:
        return resolve(self)

    def __radd__(self, other: str) -> str:
        return other + resolve(self)


def _of_the_value(name: str) -> Callable[..., Any]:
    method = getattr(str, name)

    def call(self: str, *args: Any, **kwargs: Any) -> Any:
        return method(resolve(self), *args, **kwargs)

    call.__name__ = name
    call.__doc__ = method.__doc__
    return call


_OWN = {"__eq__", "__ne__", "__hash__", "__len__", "__sizeof__", "__new__", "__getnewargs__"}
for _name, _attribute in vars(str).items():
    if callable(_attribute) and _name not in _OWN and _name not in vars(SecretReference):
        if _name in ("__getattribute__", "__lt__", "__le__", "__gt__", "__ge__", "maketrans"):
            continue
        setattr(SecretReference, _name, _of_the_value(_name))


def referenced(value: Any) -> Any:
    """Returns `value` with every reference in it made a `SecretReference`.

    It searches dicts, lists and tuples, and copies those with a reference inside.
    """
    kind = type(value)
    if kind is str:
        return SecretReference(value) if is_reference(value) else value
    return _map_container(value, kind, referenced)


def resolved(value: Any) -> Any:
    """Returns `value` with every `SecretReference` in it replaced by its plain value.

    Use it for arguments with references inside (`headers={"X-Key": "env:KEY"}`) that you pass to
    code which serialises them itself.

    Raises:
        SecretError: one of them cannot be resolved.
    """
    kind = type(value)
    if kind is SecretReference:
        return resolve(value)
    return _map_container(value, kind, resolved)


def register_literals(value: Any, name: str = "") -> None:
    """Registers plain-text secrets among arguments, recognized by their names.

    Args:
        value: An argument; dicts, lists and tuples are searched.
        name: The argument's name.
    """
    kind = type(value)
    if kind is str:
        if looks_secret(name):
            register(value)
            scheme, _, credentials = value.partition(" ")
            if scheme.lower() in ("basic", "bearer", "token"):
                register(credentials.strip())
        for credential in credentials_in(value, name):
            for form in plain_forms(credential):
                register(form)
    elif kind is dict:
        for key, element in value.items():
            register_literals(element, str(key) if not looks_secret(name) else name)
    elif kind is list or kind is tuple:
        for element in value:
            register_literals(element, name)


def register_store(options: Mapping[str, str] | None) -> None:
    """Registers the credentials of an object store.

    Args:
        options: Its settings; credentials in the environment are registered too.
    """
    register_literals(dict(options or {}))
    for name, value in os.environ.items():
        if name.startswith(_STORES) and looks_secret(name):
            register(value, f"env:{name}")


def refuse_credentials(address: str, what: str) -> None:
    """Refuses an address with a credential, which would be stored and shown with the address.

    Args:
        address: The address.
        what: The thing at the address, as in `the dataset`.

    Raises:
        ConfigError: it contains a credential.
    """
    if has_credentials(address):
        raise ConfigError(
            f"the address of {what} holds a credential: {without_credentials(address)}; give it as "
            "a storage option, or where the object store's own variables are"
        )


def _map_container(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    if kind is dict:
        changed = {key: change(element) for key, element in value.items()}
        same = all(changed[key] is value[key] for key in value)
        return value if same else changed
    if kind is list or kind is tuple:
        elements = [change(element) for element in value]
        if all(new is old for new, old in zip(elements, value, strict=True)):
            return value
        return kind(elements)
    return value


def _from_environment(name: str) -> str:
    try:
        return os.environ[name]
    except KeyError:
        raise SecretError(
            f"the environment variable {name} is not set where env:{name} is used; set it there "
            "(on every worker, when the job runs on several machines)"
        ) from None


def _from_file(where: str) -> str:
    path = os.path.expanduser(where)
    try:
        with open(path, encoding="utf-8", newline="") as file:
            value = file.read()
    except OSError as error:
        raise SecretError(
            f"cannot read the secret file:{where} ({error.strerror}); it must exist and be "
            "readable where it is used, on every worker"
        ) from error
    except UnicodeDecodeError as error:
        raise SecretError(f"the secret file:{where} is not UTF-8 text") from error
    return value.removesuffix("\n").removesuffix("\r")


def read_keyring(reference: str) -> str:
    """Returns the entry `keyring:SERVICE/NAME` of the system's keyring, or "".

    Raises:
        ConfigError: the library is not installed.
        SecretError: the keyring cannot be asked.
    """
    found = _ask_keyring(reference, lambda keyring, entry: keyring.get_password(*entry))
    return "" if found is None else str(found)


def write_keyring(reference: str, text: str) -> None:
    """Stores a text in the system's keyring.

    Raises:
        ConfigError: the library is not installed.
        SecretError: the keyring cannot be asked.
    """
    _ask_keyring(reference, lambda keyring, entry: keyring.set_password(*entry, text))


def store(reference: str, text: str) -> None:
    """Stores a renewed secret where its reference points, and remembers it for `redact`.

    A file keeps its final newline.

    Raises:
        ConfigError: nothing can be stored in such a reference.
        SecretError: storing fails.
    """
    register(text, reference)
    kind, _, where = reference.partition(":")
    if kind == "keyring":
        write_keyring(reference, text)
    elif kind != "file":
        raise ConfigError(f"nothing can be stored in {reference}")
    else:
        path = Path(os.path.expanduser(where))
        try:
            ends = path.exists() and path.read_bytes().endswith(b"\n")
            write_private(path, f"{text}\n" if ends else text)
        except OSError as error:
            raise SecretError(f"cannot store into {reference} ({error.strerror})") from error
    _cache.pop(reference, None)


def _ask_keyring(reference: str, ask: Callable[[Any, tuple[str, str]], Any]) -> Any:
    try:
        import keyring
    except ImportError:
        raise ConfigError(
            f"{reference} needs the keyring library; install contextframe-beam[keyring]"
        ) from None
    service, _, name = reference.partition(":")[2].rpartition("/")
    try:
        return ask(keyring, (service or _KEYRING_SERVICE, name))
    except keyring.errors.KeyringError as error:
        message = redact(str(error))
    raise SecretError(f"the keyring cannot be asked for {reference} ({message})")


def _from_secret_manager(reference: str, where: str) -> str:
    from apache_beam.utils.secret import GcpSecret  # Beam imports slowly and is seldom needed

    version = where if "/versions/" in where else f"{where}/versions/latest"
    try:
        return str(GcpSecret(version).get_str())
    except Exception as error:
        if isinstance(error, ImportError) or isinstance(error.__context__, ImportError):
            raise SecretError(
                f"{reference} needs Google's client library; install contextframe-beam[secrets]"
            ) from error
        raise SecretError(
            f"cannot read {where} from Secret Manager ({error}); check its name and that the "
            "account of this machine may access it"
        ) from error


def _parts(value: str) -> set[str]:
    """Returns a secret and its parts that are secret too: its lines, the values of its JSON."""
    parts = {value, value.strip()}
    if "\n" in value:
        lines = (line.strip() for line in value.splitlines())
        parts |= {line for line in lines if len(line) >= _SHORTEST_LINE and line[:5] != "-----"}
    if value[:1] == "{":
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            found = {}
        for name, element in found.items() if isinstance(found, dict) else ():
            if isinstance(element, str) and looks_secret(name):
                parts |= _parts(element)
    return parts


def _written_forms(value: str) -> set[str]:
    """Returns the ways to write a value in forms, JSON, HTML and Python literals."""
    in_json = json.dumps(value)[1:-1]
    literals = {
        in_json,
        in_json.replace("/", "\\/"),
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
    }
    return {value, quote_plus(value), html.escape(value)} | literals


def _without_encoded(text: str) -> str:
    """Returns `text` without the known secrets that are percent-encoded in it, in any way."""
    decoded = {text}
    for _ in range(_MOST_ENCODINGS):
        decoded |= {form(one) for one in decoded for form in (unquote, unquote_plus)}
    for value, label in list(_labels.items()):
        if any(value in one for one in decoded):
            text = _encoded(value).sub(label.replace("\\", r"\\"), text)
    return text


@lru_cache(maxsize=MOST_REDACTED)
def _encoded(value: str) -> re.Pattern[str]:
    """Returns a pattern for `value` with any of its characters percent-encoded, even twice."""
    parts = []
    for character in value:
        data = character.encode("utf-8", "surrogatepass")
        plain = r"(?:\ |\+)" if character == " " else re.escape(character)
        parts.append(f"(?:{plain}|{''.join(f'%(?:25)*(?i:{byte:02x})' for byte in data)})")
    return re.compile("".join(parts))


def _base64_cores(value: str) -> set[str]:
    """Returns the parts that a base64 text always contains if the encoded data contains `value`.

    Each of the three alignments gives other characters; those that also depend on the bytes before
    or behind the value are left out. Short rests would be found in any text and are dropped too.
    """
    data = value.encode("utf-8", "surrogatepass")
    cores = set()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + data)
        usable = (before + len(data)) * 8 // 6
        core = encoded[(before * 8 + 5) // 6 : usable].decode("ascii")
        if len(core) >= 6:
            cores |= {core, core.replace("+", "-").replace("/", "_")}
    return cores
