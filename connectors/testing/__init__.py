"""Testing a connector: what every one of them must do, checked against the real source.

From pytest or unittest, a subclass of `ConnectorTests` says how the connector is made:

    class TestCRM(ConnectorTests):
        def connector(self):
            return CRM(token="env:CRM_TOKEN")

The command `contextframe-beam test my_crm.py:CRM` does the same. `recorded` plays back what a
service answered once, so that tests need no network.
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
