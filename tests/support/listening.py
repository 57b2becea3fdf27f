"""Which ports a process and all that it started listen at, as Linux tells it."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
HAS_PROC = (PROC / "net/tcp").exists()
# Of linux/netlink.h, linux/sock_diag.h and net/tcp_states.h.
_SOCK_DIAG, _BY_FAMILY = 4, 20
_DUMP_REQUEST = 0x301
_ERROR, _DONE = 2, 3
_LISTENING = 1 << 10


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
    """Returns the TCP ports of this machine at which anybody listens; none where nobody can tell.

    Linux is asked for these sockets alone (sock_diag(7)): to read /proc/net/tcp, for which it walks
    through all that there may be, takes five hundred times as long.
    """
    try:
        return _ports()
    except (AttributeError, OSError):  # another system, or a kernel without that
        return []


def _ports() -> list[Port]:
    found = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        for family in (socket.AF_INET, socket.AF_INET6):
            asked = struct.pack("=BBxxI48x", family, socket.IPPROTO_TCP, _LISTENING)
            header = struct.pack("=IHHII", 16 + len(asked), _BY_FAMILY, _DUMP_REQUEST, 0, 0)
            kernel.send(header + asked)
            found += [_port(message) for message in _answers(kernel)]
    return found


def _answers(kernel: socket.socket) -> Iterator[bytes]:
    """Yields the messages of an answer, without their headers."""
    while True:
        data = kernel.recv(1 << 16)
        while data:
            size, kind = struct.unpack_from("=IH", data)
            if kind == _DONE:
                return
            if kind == _ERROR:
                (code,) = struct.unpack_from("=i", data, 16)
                raise OSError(-code, os.strerror(-code))
            yield data[16:size]
            data = data[(size + 3) // 4 * 4 :]


def _port(message: bytes) -> Port:
    """Reads a `struct inet_diag_msg`."""
    (number,) = struct.unpack_from("!H", message, 4)
    (inode,) = struct.unpack_from("=I", message, 68)
    size = 4 if message[0] == socket.AF_INET else 16
    return Port(ipaddress.ip_address(message[8 : 8 + size]), number, str(inode))


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
