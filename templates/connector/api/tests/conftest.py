"""What the tests share."""

from collections.abc import Iterator

import pytest

from .fake_api import running_api


@pytest.fixture(scope="session")
def api() -> Iterator[str]:
    """The address of a small API that runs for the tests."""
    with running_api() as url:
        yield url
