"""Starts a worker when an engine asks for one: the program `contextframe-beam-worker`.

It replaces the program `boot` of Beam's containers and takes the same arguments: as the command of
a `PROCESS` environment, or started by `contextframe-beam worker-pool` for an `EXTERNAL` one. It
fetches the files that the launcher staged, installs packages among them, and then becomes the same
worker as in local runs (`worker`).

Source of the contract: sdks/python/container/boot.go of Beam, and the protocols beam_provision_api
and beam_artifact_api.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib.util
import logging
import os
import queue
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NoReturn

from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import CommitError
from contextframe_beam.pipelines import process
from contextframe_beam.pipelines.process import collect_seldom
from contextframe_beam.pipelines.runners import worker

_LOGGER = logging.getLogger(__name__)
# How long an engine may take to describe a worker's task.
_PATIENCE_SECONDS = 120.0

_PREFIX = "contextframe-worker-"
_LOCK = "in-use"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one worker until the engine no longer needs it."""
    given = _parsed(sys.argv[1:] if arguments is None else arguments)
    process.prepare_worker()
    os.dup2(2, 1)  # Beam's pools pass a pipe here that nobody reads
    collect_seldom()
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.ERROR)
    logging.getLogger("contextframe_beam").setLevel(logging.INFO)  # and Beam's imports warn
    info = _provisioned(given)
    if given.refuse:
        _refuse_all_work(given, info, CommitError(given.refuse))
    folder = _new_folder()
    os.environ.update(_environment(given, info, folder))
    signal.signal(signal.SIGTERM, lambda *_: worker.end(1))  # which removes the folder
    staged = folder / "staged"  # the name is Beam's
    staged.mkdir()
    try:
        _fetch(_endpoint(given, info, "artifact"), given.id, info.dependencies, staged)
        python = python_with(packages_in(staged), folder / "environment")
    except Exception as error:
        _LOGGER.exception("worker %s refuses all work", given.id)
        _refuse_all_work(given, info, error)
    if python != sys.executable:
        os.execv(python, [python, "-m", worker.__name__])
    logging.getLogger().handlers.clear()
    worker.main()


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "contextframe-beam-worker",
        description="Run one worker. Engines start this, with an environment of the type PROCESS, "
        "and so does `contextframe-beam worker-pool`.",
    )
    # Prism puts quotes around it, as for a shell.
    parser.add_argument("--id", required=True, type=lambda text: text.strip("'"))
    parser.add_argument("--provision_endpoint", required=True)
    for name in ("logging", "artifact", "control"):
        parser.add_argument(f"--{name}_endpoint", default="")
    # Of the pool, in the place of a worker that has ended: what all work is answered with.
    parser.add_argument("--refuse", default="", help=argparse.SUPPRESS)
    known, _ = parser.parse_known_args(arguments)
    return known


def _new_folder() -> Path:
    """Makes a folder for this worker, and removes the folders of killed workers.

    Each worker locks its folder, and keeps the lock when it becomes another program.
    """
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError), lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    descriptor = os.open(folder / f"new-{_LOCK}", os.O_CREAT | os.O_RDWR)
    os.set_inheritable(descriptor, True)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    (folder / f"new-{_LOCK}").rename(folder / _LOCK)
    return folder


def _endpoint(given: argparse.Namespace, info: Any, name: str) -> str:
    """Returns the address of one of the engine's services, preferably from the engine itself."""
    return str(getattr(info, f"{name}_endpoint").url or getattr(given, f"{name}_endpoint"))


def _channel(address: str, worker_id: str) -> Any:
    import grpc
    from apache_beam.runners.worker.channel_factory import GRPCChannelFactory
    from apache_beam.runners.worker.worker_id_interceptor import WorkerIdInterceptor

    channel = GRPCChannelFactory.insecure_channel(
        address, [("grpc.max_receive_message_length", -1)]
    )
    return grpc.intercept_channel(channel, WorkerIdInterceptor(worker_id))


def _provisioned(given: argparse.Namespace) -> Any:
    from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc

    with _channel(given.provision_endpoint, given.id) as channel:
        stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        request = beam_provision_api_pb2.GetProvisionInfoRequest()
        return stub.GetProvisionInfo(request, timeout=_PATIENCE_SECONDS, wait_for_ready=True).info


def _environment(given: argparse.Namespace, info: Any, folder: Path) -> dict[str, str]:
    """Returns the variables that describe the task to Beam's worker."""
    from google.protobuf import json_format, text_format

    options = folder / "options.json"
    options.write_text(json_format.MessageToJson(info.pipeline_options))
    found = {
        "WORKER_ID": given.id,
        # A file, because an environment variable can have at most 128 KiB.
        "PIPELINE_OPTIONS_FILE": str(options),
        "SEMI_PERSISTENT_DIRECTORY": str(folder),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
        worker.FOLDER_VARIABLE: str(folder),
    }
    if info.HasField("status_endpoint"):
        found["STATUS_API_SERVICE_DESCRIPTOR"] = text_format.MessageToString(info.status_endpoint)
    for name in ("control", "logging"):
        descriptor = type(info.control_endpoint)(url=_endpoint(given, info, name))
        found[f"{name.upper()}_API_SERVICE_DESCRIPTOR"] = text_format.MessageToString(descriptor)
    return found


def _fetch(address: str, worker_id: str, artifacts: Iterable[Any], folder: Path) -> None:
    """Copies the staged files into a folder, under their staged names.

    Raises:
        CommitError: a file did not arrive as it was sent.
    """
    from apache_beam.portability import common_urns
    from apache_beam.portability.api import (
        beam_artifact_api_pb2,
        beam_artifact_api_pb2_grpc,
        beam_runner_api_pb2,
    )

    wanted = list(artifacts)
    if not wanted:
        return
    with _channel(address, worker_id) as channel:
        stub = beam_artifact_api_pb2_grpc.ArtifactRetrievalServiceStub(channel)
        request = beam_artifact_api_pb2.ResolveArtifactsRequest(artifacts=wanted)
        for artifact in stub.ResolveArtifacts(request, timeout=_PATIENCE_SECONDS).replacements:
            if artifact.role_urn != common_urns.artifact_roles.STAGING_TO.urn:
                raise CommitError(
                    f"the job brings an artifact of the role {artifact.role_urn}, which this "
                    "worker cannot install; use --requirements_file, --setup_file or "
                    "--extra_package"
                )
            role = beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(
                artifact.role_payload
            )
            file = beam_runner_api_pb2.ArtifactFilePayload.FromString(artifact.type_payload)
            digest = hashlib.sha256()
            with (folder / PurePath(role.staged_name).name).open("wb") as into:
                for block in stub.GetArtifact(
                    beam_artifact_api_pb2.GetArtifactRequest(artifact=artifact)
                ):
                    digest.update(block.data)
                    into.write(block.data)
            if file.sha256 and file.sha256 != digest.hexdigest():
                raise CommitError(f"{role.staged_name} did not reach a worker as it was staged")


def _refuse_all_work(given: argparse.Namespace, info: Any, error: Exception) -> NoReturn:
    """Answers every request of the engine with `error`, until it is done.

    Otherwise an engine would wait for ever for a worker of the pool, without saying why.
    """
    import grpc
    from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

    from contextframe_beam.pipelines.runners.harness import inputs_of

    if not isinstance(error, CommitError):
        error = CommitError(f"a worker could not be set up: {type(error).__name__}: {error}")
    # Like the end of a traceback, so that the launcher finds it in the engine's message.
    reason = f"\n{type(error).__module__}.{type(error).__qualname__}: {error}"
    answers: queue.Queue[Any] = queue.Queue()
    connected: dict[str, Any] = {}
    with (
        contextlib.suppress(grpc.RpcError),  # raised when a failed engine closes the connection
        _channel(_endpoint(given, info, "control"), given.id) as channel,
    ):
        stub = beam_fn_api_pb2_grpc.BeamFnControlStub(channel)
        for request in stub.Control(iter(answers.get, None)):
            name = request.process_bundle.process_bundle_descriptor_id
            if name:
                # Some engines wait until the input is taken; see `harness`.
                wanted = beam_fn_api_pb2.GetProcessBundleDescriptorRequest(
                    process_bundle_descriptor_id=name
                )
                for url in inputs_of(stub.GetProcessBundleDescriptor(wanted)) - {*connected}:
                    data = beam_fn_api_pb2_grpc.BeamFnDataStub(_channel(url, given.id))
                    connected[url] = data.Data(iter(queue.Queue().get, None))
            answers.put(
                beam_fn_api_pb2.InstructionResponse(
                    instruction_id=request.instruction_id, error=reason
                )
            )
    worker.end(1)


if __name__ == "__main__":
    main()


# The names under which Beam stages files; apache_beam/runners/portability/stager.py.
_REQUIREMENTS = "requirements.txt"
_EXTRA_PACKAGES = "extra_packages.txt"
_PACKAGE_OF_SETUP_FILE = "workflow.tar.gz"
_BEAM_ITSELF = "dataflow_python_sdk.tar"

_SHOWN_LINES = 6


@dataclass(frozen=True)
class Packages:
    """The packages among the staged files.

    Attributes:
        folder: The folder, which may contain packages that the requirements name.
        requirements: The file of requirements, if there is one.
        archives: Wheels and source distributions, in order.
    """

    folder: Path
    requirements: Path | None
    archives: tuple[Path, ...]


def packages_in(folder: Path) -> Packages:
    """Returns the packages in a folder of staged files.

    Raises:
        CommitError: Beam itself is among them.
    """
    if (folder / _BEAM_ITSELF).exists():
        raise CommitError(
            "--sdk_location: this worker runs the Beam that is installed where it runs; install "
            "that version there, and leave the option out"
        )
    names = [_PACKAGE_OF_SETUP_FILE]
    listed = folder / _EXTRA_PACKAGES
    if listed.exists():
        names = [*listed.read_text().split("\n"), *names]
    archives = tuple(folder / name for name in names if name and (folder / name).exists())
    requirements = folder / _REQUIREMENTS
    return Packages(folder, requirements if requirements.exists() else None, archives)


def python_with(packages: Packages, folder: Path) -> str:
    """Returns a Python that can import a job's packages: this one if there are no packages.

    Args:
        packages: The packages to install.
        folder: The folder for the environment.

    Raises:
        CommitError: a package cannot be installed, or the worker does not start with it.
    """
    if packages.requirements is None and not packages.archives:
        return sys.executable
    if importlib.util.find_spec("pip") is None:
        raise CommitError(
            f"packages of the job cannot be installed on a worker: {sys.executable} has no pip; "
            "run `python -m ensurepip` there"
        )
    _LOGGER.info("installing the packages of this job into %s", folder)
    python = _make(folder)
    wheels = _wheels_of(python, packages, folder / "wheels")
    if wheels:
        # Install them even if the same version is already installed.
        _pip(python, "install", "--no-index", "--no-deps", "--force-reinstall", *wheels)
    needed = [*wheels]
    if packages.requirements is not None:
        needed += ["-r", str(packages.requirements)]
    links = ["--find-links", str(packages.folder)]
    # The staged files are usually enough, so that workers do not need an index.
    _first_of(python, ["install", "--no-index", *links, *needed], ["install", *links, *needed])
    check = (
        "import apache_beam.runners.worker.sdk_worker_main, "
        "contextframe_beam.pipelines.runners.worker"
    )
    _run([python, "-c", check], "with the packages of this job a worker does not start")
    return python


def _make(folder: Path) -> str:
    venv.EnvBuilder(symlinks=True).create(folder)
    (own,) = folder.glob("lib/python*/site-packages")
    seen = site.getsitepackages()
    if site.ENABLE_USER_SITE:
        seen.append(site.getusersitepackages())
    # Not as separate lines, which would ignore links to editable installs.
    line = f"import site; list(map(site.addsitedir, {seen!r}))\n"
    (own / "contextframe-beam-worker.pth").write_text(line)
    return str(folder / "bin" / "python")


def _wheels_of(python: str, packages: Packages, folder: Path) -> list[str]:
    """Returns the archives as wheels, and builds source distributions."""
    wheels = []
    for archive in packages.archives:
        if archive.suffix == ".whl":
            wheels.append(str(archive))
            continue
        build = ["wheel", "--no-deps", "-w", str(folder / archive.name), str(archive)]
        links = ["--find-links", str(packages.folder)]
        # By default Beam does not use an index, but the build tools may not be installed.
        _first_of(python, [*build, "--no-index", "--no-build-isolation"], [*build, *links])
        wheels.extend(str(path) for path in (folder / archive.name).glob("*.whl"))
    return wheels


def _first_of(python: str, first: Sequence[str], second: Sequence[str]) -> None:
    try:
        _pip(python, *first)
    except CommitError as error:
        _LOGGER.info("%s; trying it with a package index", error)
        _pip(python, *second)


def _pip(python: str, *arguments: str) -> None:
    command = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", "-q", *arguments]
    _run(command, "packages of the job cannot be installed on a worker")


def _run(command: Sequence[str], failure: str) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "PIP_USER": "0"},  # some images set it, and it would be refused here
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        raise CommitError(redact("\n  ".join([f"{failure}:", *lines[-_SHOWN_LINES:]])))
