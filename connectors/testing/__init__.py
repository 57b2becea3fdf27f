"""Tests a connector against its real source: the checks that every connector must pass.

In pytest or unittest, a subclass of `ConnectorTests` makes the connector:

    class TestCRM(ConnectorTests):
        def connector(self):
            return CRM(token="env:CRM_TOKEN")

The command `contextframe-beam test my_crm.py:CRM` does the same. `recorded` plays back what a
service answered once, so that tests do not need a network.
"""

from contextframe_beam.connectors.testing.subject import Outcome, Status, Subject
from contextframe_beam.connectors.testing.suite import CHECKS, ConnectorTests, recorded, run_checks

__all__ = [
    "CHECKS",
    "ConnectorTests",
    "Outcome",
    "Status",
    "Subject",
    "recorded",
    "run_checks",
]
