"""The suite itself: what keeps it cheap holds."""

import pytest


@pytest.mark.xdist_group("together")
def test_groups_of_tests_stay_in_one_process(request: pytest.FixtureRequest) -> None:
    if not hasattr(request.config, "workerinput"):
        pytest.skip("the tests are not shared out")
    assert request.node.nodeid.endswith("@together")
