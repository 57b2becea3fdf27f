"""Keeps the servers of Beam on this machine.

Whoever reaches the ports by which a runner talks with its workers can read what they read and have
them run any function. Beam's workers connect to `localhost`, but its servers listen at every
address.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import grpc

_EVERYWHERE = ("[::]", "0.0.0.0", "*", "")


def stay_local(*modules: ModuleType) -> None:
    """Makes the servers that these modules of Beam start listen at the loopback address only."""
    for module in modules:
        vars(module)["grpc"] = _Grpc()


def local_address(address: str) -> str:
    """Returns where to listen instead of at every address; any other address stays as it is.

    Args:
        address: As gRPC takes it, such as `[::]:0`.
    """
    host, _, port = address.rpartition(":")
    return f"localhost:{port}" if host in _EVERYWHERE else address


class _Grpc:
    """The module `grpc` but for `server`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(grpc, name)

    def server(self, *args: Any, **kwargs: Any) -> Any:
        server = grpc.server(*args, **kwargs)
        listen = server.add_insecure_port
        server.add_insecure_port = lambda address: listen(local_address(address))
        return server
