"""A connector for contextframe-beam; it is found by the name my-connector."""

from my_connector.connector import MyConnector

__all__ = ["MyConnector"]
