"""Recognizes secrets in plain text, by their names and by their form inside other text.

The author of a configuration, an address or a message may not know that it contains a secret: a
password before the host, a signature in a query, a key in a connection string, the token of a
webhook. The name or the form shows the secret, even if we do not know its value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote, unquote_plus

#: Takes the place of a secret.
STARS = "***"

# Endings that number the keys of a service or name the form of a secret: `api_key_2`, `key_pem`.
_AFTER_NAME = r"(?:_(?:value|text|pem|json|b64|base64|v?\d+))?"
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:keys?|apikeys?|tokens?|secrets?|passwords?|passwd|pwd|passphrase|passcode"
    r"|credentials?|creds|authorization|cookies?|pat|sas|sig|signature|jwt|otp|totp"
    rf"|access_key_id|access_signature){_AFTER_NAME}$"
)
_OTHER_KEYS = re.compile(
    r"^keys$|(?:^|_)(?:primary|foreign|sort|partition|row|unique|merge|join|group|order|object"
    r"|cache|public|max|min|num|page|next|continuation|sync|stop)_(?:keys?|tokens?)$"
)
_WEBHOOK_NAME = re.compile(r"(?:^|_)(?:web)?hooks?(?:_(?:url|uri|address))?$")
_DSN_NAME = re.compile(r"(?:^|_)(?:dsn|conn(?:ection)?_?str(?:ing)?)$")
_REFERENCE = re.compile(r"(?:env|file|keyring|gcp-secret):")
# A placeholder in a configuration, as in `{parent.token}`.
_PLACE = re.compile(r"\{[\w.@$\-]+\}")

# Names that mean a secret in the query of an address if the value is longer than a word. An
# argument may have these names for other reasons.
_LONG_IN_QUERY = ("code", "auth", "key", "keys")
_LONG = 16

_USER = r"[^/\s:@?#\[\]\"'<>]{0,200}"
_VALUE = r"(?:'[^']*'|\"[^\"]*\"|\{[^}]*\}|[^\s;&,'\"<>)\]}]+)"
_STRONG = (
    r"(?:password|passwd|pwd|passphrase|secret|api[_-]?key|account[_-]?key|access[_-]?key"
    r"|access[_-]?signature|private[_-]?key|(?:access|refresh|auth|session|bearer|security)"
    r"[_-]?token)"
)

# In each pattern the group `secret` is removed. Those for addresses come first.
_ADDRESSES = (
    # https://user:password@host; a password that was not encoded may contain any of `@/?#`.
    # The limit keeps the search linear in the length of the text.
    re.compile(
        rf"://{_USER}:(?:(?P<secret>[^/\s?#\"'<>]{{1,500}})(?=@)|(?!\d+(?:[/?#]))(?P<second>[^\s@\"'<>]{{1,500}})(?=@))"
    ),
    # https://token@host
    re.compile(r"://(?P<secret>[A-Za-z0-9_\-]{20,})(?=@)"),
    # Anyone who knows these paths may write to them.
    re.compile(
        r"hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/(?P<secret>[^\s\"'<>?#]+)"
    ),
    re.compile(r"(?:discord|discordapp)\.com/api/(?:v\d+/)?webhooks/\d+/(?P<secret>[\w\-]+)"),
    # A signed address of a file of Discord, whose names alone say little.
    re.compile(r"[?&]ex=[0-9a-f]+&is=[0-9a-f]+&hm=(?P<secret>[^&#\s\"'<>]+)"),
    re.compile(r"webhook\.office\.com/webhookb2/(?P<secret>[^\s\"'<>?#]+)"),
    re.compile(r"api\.telegram\.org/(?:file/)?bot(?P<secret>\d+:[\w\-]+)"),
    re.compile(r"://(?:web)?hooks?\.[^/\s\"'<>]+/(?P<secret>[^\s\"'<>?#*]+)"),
)
_PARAMETER = re.compile(r"[?&;#](?P<name>[\w.$%\-]{1,80})=(?P<secret>[^&#\s\"'<>;]+)")
_TEXTS = (
    # Connection strings, and the objects that errors print.
    re.compile(
        rf"(?i)(?<![\w.\-])[\w.\-]{{0,40}}{_STRONG}(?:=|[\"']\s*:\s*(?=[\"']))(?P<secret>{_VALUE})"
    ),
    re.compile(
        r"(?i)\bauthorization[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic|token|digest)\s+)?"
        r"(?P<secret>[^\s\"',;]+)"
    ),
    re.compile(r"(?i)\b(?:bearer|basic)\s+(?P<secret>[\w.~+/\-]{16,}=*)"),
    # An object store's message about a wrong signature.
    re.compile(
        r"<(?P<name>AWSAccessKeyId|AccessKeyId|OSSAccessKeyId|GoogleAccessId|StringToSign|"
        r"StringToSignBytes|CanonicalRequest|CanonicalRequestBytes|SignatureProvided)>"
        r"(?P<secret>[^<>]+)</(?P=name)>"
    ),
    # Keys that show by their form which service they are for.
    re.compile(
        r"(?<![A-Za-z0-9])(?P<secret>gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}"
        r"|glpat-[\w\-]{20,}|xox[abeoprs]-[\w\-]{10,}|(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"
        r"|AIza[\w\-]{35}|sk-[\w\-]{20,}|[rs]k_(?:live|test)_\w{10,}|ya29\.[\w\-]{20,}"
        r"|lin_api_\w{20,}|eyJ[\w\-]{10,}\.eyJ[\w\-]{10,}\.[\w\-]+)"
    ),
    re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?P<secret>.+?)(?=-----END|\Z)", re.DOTALL),
)


def looks_secret(name: str) -> bool:
    """Returns whether an argument with this name usually has a secret: `api_key`, `authToken`."""
    snake = _snake(name)
    return bool(_SECRET_NAME.search(snake)) and not _OTHER_KEYS.search(snake)


def without_credentials(text: str, name: str = "") -> str:
    """Returns `text` with `***` for each credential that can be recognized by its form.

    Args:
        text: An address, a connection string, a message.
        name: The argument that contains it, if any: `webhook_url` and `dsn` say more than the
            address alone.
    """
    for start, end in reversed(_spans(text, _named(name) + _ADDRESSES, _TEXTS)):
        text = text[:start] + STARS + text[end:]
    return text


def credentials_in(text: str, name: str = "") -> list[str]:
    """Returns the credentials in `text` that can be recognized by their form, as written there."""
    return [text[start:end] for start, end in _spans(text, _named(name) + _ADDRESSES, _TEXTS)]


def has_credentials(address: str, name: str = "") -> bool:
    """Returns whether an address contains a credential."""
    return bool(_spans(address, _named(name) + _ADDRESSES, ()))


def plain_forms(credential: str) -> set[str]:
    """Returns the other forms of a part of an address, such as the decoded one."""
    return {credential, unquote(credential), unquote_plus(credential)}


def _snake(name: str) -> str:
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return parts.replace("-", "_").lower()


def _named(name: str) -> tuple[re.Pattern[str], ...]:
    """Returns the patterns for secrets in the value of an argument, chosen by its name."""
    snake = _snake(name)
    if _WEBHOOK_NAME.search(snake):
        return (re.compile(r"\w+://[^/\s]+/(?P<secret>[^\s*].*)"),)
    if _DSN_NAME.search(snake):
        return (re.compile(r"\A[^/\s@:]+/(?P<secret>[^\s@]+)(?=@)"),)
    return ()


def _spans(
    text: str, addresses: tuple[re.Pattern[str], ...], texts: tuple[re.Pattern[str], ...]
) -> list[tuple[int, int]]:
    """Returns the positions of the credentials, in order and without overlaps."""
    found = sorted(_found(text, addresses, texts), key=lambda span: (span[0], -span[1]))
    spans: list[tuple[int, int]] = []
    for start, end in found:
        if not spans or start >= spans[-1][1]:
            spans.append((start, end))
    return spans


def _found(
    text: str, addresses: tuple[re.Pattern[str], ...], texts: tuple[re.Pattern[str], ...]
) -> Iterator[tuple[int, int]]:
    for pattern in (*addresses, *texts):
        for match in pattern.finditer(text):
            group = "secret" if match["secret"] is not None else "second"
            if not _is_harmless(match[group], pattern in addresses):
                yield match.span(group)
    for match in _PARAMETER.finditer(text):
        name, value = unquote(match["name"]), match["secret"]
        counts = looks_secret(name) if _snake(name) not in _LONG_IN_QUERY else len(value) >= _LONG
        if counts and not _is_harmless(value, True):
            yield match.span("secret")


def _is_harmless(value: str, in_address: bool) -> bool:
    """Returns whether a value is a reference, already has stars, or is a placeholder."""
    bare = value.strip("'\"")
    if in_address and _PLACE.search(bare):
        return True
    return not bare or set(bare) == {"*"} or _REFERENCE.match(bare) is not None
