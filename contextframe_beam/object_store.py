"""What an object store answered, in words."""

from __future__ import annotations

import re

_STATUS = re.compile(r"status code: (?P<code>\d{3})\b ?(?P<words>[A-Z][A-Za-z ]*)?")
_ADVICE = {
    "401": "check the credentials",
    "403": "check the credentials, and what they may do there",
    "404": "check that the bucket exists",
    "429": "the store asks for fewer requests, try again later",
    "500": "the store is in trouble, try again later",
    "503": "the store is in trouble or asks for fewer requests, try again later",
}


def in_words(message: str) -> str:
    """Returns what an object store answered, in place of the client's account of it.

    A message that is about something else stays as it is.
    """
    status = _STATUS.search(message)
    if status is not None:
        advice = _ADVICE.get(status["code"])
        answer = " ".join([status["code"], *(status["words"] or "").split()])
        return f"the object store answered {answer}" + (f" ({advice})" if advice else "")
    if "error sending request" in message or "HTTP error" in message:
        return "the object store cannot be reached (check the endpoint and the network)"
    return message
