"""Command: which program is run, on this machine or in a container, and what it is called."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import dataclass

from contextframe_beam.connectors.plain_secrets import has_credentials, without_credentials
from contextframe_beam.errors import ConfigError

__all__ = ["Command"]

# Programs that start another one, whose name says more: their first word, or their last one.
_INTERPRETERS = ("python", "python3", "sh", "bash", "env", "node")
_INSTALLERS = ("uvx", "uv", "pipx", "npx")
_IN_CONTAINER = "/contextframe"


@dataclass(frozen=True, slots=True)
class Command:
    """How a program is started.

    Attributes:
        words: The program and its first arguments; those of a container come before its image.
        image: The image of a container; "" for a program on this machine.
    """

    words: tuple[str, ...]
    image: str = ""

    @classmethod
    def of(cls, command: str | None, image: str | None = None, usual: str = "") -> Command:
        """Makes it of what a user gives.

        Args:
            command: The program with its arguments, as a shell would split it.
            image: An image in place of it, which docker runs.
            usual: The program where neither is given.

        Raises:
            ConfigError: both are given or neither, or the command cannot be split.
        """
        if command and image:
            raise ConfigError("give command or image, and not both of them")
        if image:
            return cls(("docker",), _without_secret(image, "image"))
        if not command and not usual:
            raise ConfigError("nothing says which program to run; give command")
        try:
            words = tuple(shlex.split(_without_secret(command or usual, "command")))
        except ValueError as error:
            raise ConfigError(f"the command cannot be split into words: {error}") from None
        if not words:
            raise ConfigError("the command is empty; give a program")
        return cls((os.path.expanduser(words[0]), *words[1:]))

    @property
    def name(self) -> str:
        """What the program is called, the same for each of its releases."""
        if self.image:
            return self.image.rpartition("/")[2].partition("@")[0].partition(":")[0]
        first = os.path.basename(self.words[0])
        kind = first.partition(".")[0]
        others = [one for one in self.words[1:] if not (one.startswith("-") or "=" in one)]
        if not others or kind not in (*_INTERPRETERS, *_INSTALLERS):
            return first
        named = others[0 if kind in _INTERPRETERS else -1]
        return os.path.basename(named).removesuffix(".py").partition("@")[0]

    def require(self) -> None:
        """Refuses a program that is not there.

        Raises:
            ConfigError: it is not.
        """
        program = self.words[0]
        if shutil.which(program):
            return
        if self.image:
            raise ConfigError(
                f"the image {self.image} is run by docker, which is not installed here; install "
                "it, or give the program itself as the command"
            )
        raise ConfigError(
            f"there is no program {program!r} here; install it, give its path, or let the command "
            "install it, as uvx does"
        )

    def line(
        self, arguments: list[str], container: str, folder: str, files: list[str]
    ) -> list[str]:
        """Returns the whole command line.

        Args:
            arguments: What the program gets.
            container: The name of the container.
            folder: The folder of the files that the program reads; used for a container.
            files: Their names.
        """
        if not self.image:
            return [*self.words, *arguments]
        mounts = [
            word
            for name in files
            for word in ("-v", f"{folder}/{name}:{self.path_inside(name)}:ro")
        ]
        run = ["run", "--rm", "-i", "--init", "--name", container]
        return [*self.words, *run, *mounts, self.image, *arguments]

    def path_inside(self, name: str) -> str:
        """Returns where a program in a container finds a file."""
        return f"{_IN_CONTAINER}/{name}"


def _without_secret(text: str, what: str) -> str:
    if has_credentials(text):
        raise ConfigError(
            f"the {what} holds a secret, which everybody on the machine could see while it runs: "
            f"{without_credentials(text)}; put it into the configuration, as a reference"
        )
    return text
