"""Disks of their own for tests, where one may be mounted: soon full, or only to be read."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk_at(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mounts an empty disk of this size at a folder, which it makes; else it skips the test."""
    with _disk_at(folder, f"size={megabytes}m"):
        yield folder


@contextmanager
def read_only_disk_at(folder: Path) -> Iterator[Path]:
    """Mounts a disk that nobody can write at a folder, which it makes; else it skips the test."""
    with _disk_at(folder, "ro"):
        yield folder


@contextmanager
def _disk_at(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command to make a disk with")
    if done.returncode:
        pytest.skip(f"a disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        # Threads of Lance may still hold a file for a moment.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
