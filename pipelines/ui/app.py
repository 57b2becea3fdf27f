"""The page's server: which address shows what, and who may look.

Pages are made on the server, without scripts and without a request to anywhere else. They only
read: nothing that a browser can send changes the dataset.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import ConfigError, ContextFrameError, DatasetError
from contextframe_beam.pipelines.cli.outcome import ago, took
from contextframe_beam.pipelines.ui import facts
from contextframe_beam.store.address import Address

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_PAGES = Path(__file__).parent / "pages"
_HERE = ("127.0.0.1", "localhost", "[::1]")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def page_of(address: Address) -> Starlette:
    """Returns the application that shows a dataset.

    Args:
        address: The dataset; it may not exist yet.

    Raises:
        ConfigError: what the page needs is not installed.
    """
    for name in ("starlette", "jinja2", "uvicorn"):
        _require(name)
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from starlette.applications import Starlette
    from starlette.responses import FileResponse, HTMLResponse
    from starlette.routing import Route

    templates = Environment(
        loader=FileSystemLoader(_PAGES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(ago=ago, took=took, number=lambda value: f"{value:,}")
    shown = redact(address.uri)

    def page(
        name: str, look: Callable[[Request], dict[str, Any] | None]
    ) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            status = 200
            try:
                told = look(request)
                if told is None:
                    status, told = 404, {"message": "There is no such thing in this dataset."}
            except DatasetError as error:
                status, told = 503, {"message": redact(str(error))}
            except ContextFrameError as error:
                status, told = 400, {"message": redact(str(error))}
            template = templates.get_template(name if status == 200 else "error.html")
            text = template.render(uri=shown, path=request.url.path, **told)
            return HTMLResponse(text, status)

        return answer

    def style(_: Request) -> Response:
        return FileResponse(_PAGES / "style.css", media_type="text/css")

    return Starlette(
        routes=[
            Route("/", page("overview.html", lambda _: facts.overview(address))),
            Route(
                "/runs/{run_id:path}",
                page("run.html", lambda got: facts.run(address, got.path_params["run_id"])),
            ),
            Route(
                "/search",
                page(
                    "search.html", lambda got: facts.found(address, got.query_params.get("q", ""))
                ),
            ),
            Route(
                "/documents",
                page(
                    "documents.html",
                    lambda got: facts.documents(address, got.query_params.get("from", "0")),
                ),
            ),
            Route(
                "/documents/{id:path}",
                page("document.html", lambda got: facts.document(address, got.path_params["id"])),
            ),
            Route("/style.css", style),
        ],
        middleware=[_guard()],
    )


def _require(name: str) -> None:
    try:
        import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"the page needs {name}, which is not installed; run: "
            "pip install 'contextframe-beam[ui]'"
        ) from error


def _guard() -> Any:
    """Lets only this machine's own browser look, and only look.

    A page of another site could otherwise send requests here, by a name that it lets point to this
    machine.
    """
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.responses import PlainTextResponse

    async def guarded(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        origin = request.headers.get("origin")
        if not _is_here(request.headers.get("host", "")):
            response: Response = PlainTextResponse("This page is shown at 127.0.0.1 only.", 403)
        elif origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            response = PlainTextResponse("This page answers its own pages only.", 403)
        elif request.method not in ("GET", "HEAD"):
            response = PlainTextResponse("This page only shows.", 405)
        else:
            response = await call(request)
        response.headers.update(_HEADERS)
        return response

    return Middleware(BaseHTTPMiddleware, dispatch=guarded)


def _is_here(host: str) -> bool:
    name, colon, port = host.rpartition(":")
    if colon and port.isdigit():
        host = name
    return host in _HERE


def listening(port: int) -> socket.socket:
    """Returns a socket on this machine's own address, which no other machine reaches.

    Args:
        port: The port; 0 takes a free one.

    Raises:
        ConfigError: the port is taken.
    """
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(("127.0.0.1", port))
    except OSError as error:
        found.close()
        raise ConfigError(
            f"port {port} cannot be used ({error.strerror}); give another one, or 0 for a free one"
        ) from error
    return found


def serve(app: Starlette, at: socket.socket) -> None:
    """Serves the page until this process is interrupted."""
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[at])
