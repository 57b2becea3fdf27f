"""`contextframe-beam worker-pool`: starts workers when an engine asks for them."""

from __future__ import annotations

import sysconfig
import threading
from pathlib import Path

import click

from contextframe_beam.errors import ConfigError
from contextframe_beam.pipelines._shared import command, option


@command("worker-pool", "contextframe-beam worker-pool --port 50000")
@option(
    "--port",
    type=click.IntRange(0, 65535),
    default=50000,
    show_default=True,
    metavar="PORT",
    help="Where to listen; 0 takes a free port.",
)
@option(
    "--host",
    default="localhost",
    show_default=True,
    metavar="HOST",
    help="The address to listen at. Whoever reaches it can run any program as this user.",
)
def worker_pool_command(port: int, host: str) -> None:
    """Start workers when an engine asks for them, until this is interrupted.

    It runs beside each of the engine's machines, for runs with --environment_type=EXTERNAL and
    --environment_config=HOST:PORT. A worker runs in the environment that this command is installed
    in, and first installs for itself the packages of --setup_file, --extra_package and
    --requirements_file. References to secrets are looked up here.
    """
    from contextframe_beam.pipelines.worker_pool import serve

    program = Path(sysconfig.get_path("scripts"), "contextframe-beam-worker")
    if not program.exists():
        raise ConfigError(f"there is no {program}; install contextframe-beam again")
    with serve(str(program), host, port) as address:
        click.echo(f"starting workers for whoever asks at {address}; Ctrl-C ends them", err=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            click.echo("interrupted; the workers end", err=True)
