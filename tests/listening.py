"""Which ports a process and all that it started listen at, as Linux tells it under /proc."""

from __future__ import annotations

import ipaddress
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
HAS_PROC = (PROC / "net/tcp").exists()
_LISTENS = "0A"


@dataclass(frozen=True)
class Port:
    """A port that a process listens at.

    Attributes:
        address: Of the machine's addresses, the one at which it does.
        number: The port's number.
        inode: Of the socket.
    """

    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    number: int
    inode: str

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        mapped = getattr(self.address, "ipv4_mapped", None)
        return (mapped or self.address).is_loopback


def ports() -> list[Port]:
    """Returns the TCP ports of this machine at which anybody listens."""
    found = []
    for table in ("tcp", "tcp6"):
        with suppress(FileNotFoundError):
            for line in (PROC / "net" / table).read_text().splitlines()[1:]:
                _, local, _, state, *rest = line.split()
                if state == _LISTENS:
                    host, _, port = local.partition(":")
                    found.append(Port(_address(host), int(port, 16), rest[5]))
    return found


def processes_below(root: int) -> set[int]:
    """Returns a process and all that it started, directly or not."""
    parents = {}
    for folder in PROC.iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                parents[int(folder.name)] = int(stat[1])
    tree = {root}
    while more := {one for one, parent in parents.items() if parent in tree} - tree:
        tree |= more
    return tree


def ports_below(root: int, known: list[Port] | None = None) -> list[Port]:
    """Returns those ports at which a process listens, or one that it started.

    Args:
        root: The process.
        known: Choose of these; of all when not given.
    """
    sockets = set()
    for process in processes_below(root):
        with suppress(OSError):
            for file in os.scandir(PROC / str(process) / "fd"):
                with suppress(OSError):
                    sockets.add(os.readlink(file.path))
    listed = ports() if known is None else known
    return [one for one in listed if f"socket:[{one.inode}]" in sockets]


@contextmanager
def watched(every: float = 0.005) -> Iterator[list[Port]]:
    """Gives a list of all ports at which this process listens meanwhile, or one that it starts.

    Args:
        every: Seconds between two looks.
    """
    seen: dict[tuple[str, int], Port] = {}
    found: list[Port] = []
    ended = threading.Event()

    def watch() -> None:
        while True:
            for one in ports_below(os.getpid()):
                if seen.setdefault((str(one.address), one.number), one) is one:
                    found.append(one)
            if ended.wait(every):
                return

    watcher = threading.Thread(target=watch, name="ports", daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        ended.set()
        watcher.join()


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    # Words of four bytes, each in the order of this machine.
    data = b"".join(
        struct.pack("=I", int(text[start : start + 8], 16)) for start in range(0, len(text), 8)
    )
    return ipaddress.ip_address(data)
