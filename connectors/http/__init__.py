"""One HTTP client, with credentials, budgets, retries, limits and a cache."""

from contextframe_beam.connectors.http.auth import Auth, auth_from_config
from contextframe_beam.connectors.http.budget import Budget, Limit
from contextframe_beam.connectors.http.cache import Cache
from contextframe_beam.connectors.http.client import HttpClient, HttpStats
from contextframe_beam.connectors.http.queries import Queries, QueryError
from contextframe_beam.connectors.http.request import (
    UNREADABLE,
    HttpError,
    HttpRequest,
    HttpResponse,
    JsonFormatter,
)
from contextframe_beam.connectors.http.retry import Wait

__all__ = [
    "UNREADABLE",
    "Auth",
    "Budget",
    "Cache",
    "HttpClient",
    "HttpError",
    "HttpRequest",
    "HttpResponse",
    "HttpStats",
    "JsonFormatter",
    "Limit",
    "Queries",
    "QueryError",
    "Wait",
    "auth_from_config",
]
