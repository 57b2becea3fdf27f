"""Chooses the engine for a job, and its options.

`DirectRunner` always means the in-process FnApiRunner here, although Beam's own switch with that
name may pick others. Every other name goes to Beam unchanged, with Beam's own options. Flink,
Spark and Prism start from the files of `make engines`, unless the options name others.
"""

from __future__ import annotations

import argparse
import copy
import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import apache_beam as beam
import grpc
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.options.pipeline_options import (
    DirectOptions,
    FlinkRunnerOptions,
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
    SparkRunnerOptions,
    WorkerOptions,
)
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability import abstract_job_service, local_job_service
from apache_beam.runners.portability.fn_api_runner import fn_runner, worker_handlers
from apache_beam.runners.portability.portable_runner import JobServiceHandle, PipelineResult
from apache_beam.runners.runner import PipelineResult as AnyResult
from apache_beam.runners.runner import PipelineRunner, create_runner
from apache_beam.runners.worker import worker_pool_main

from contextframe_beam.connectors.read import runtime
from contextframe_beam.connectors.read.held import released
from contextframe_beam.errors import (
    CommitError,
    ConfigError,
    ContextFrameError,
    UnknownCommitError,
    nearest,
)
from contextframe_beam.pipelines.runners.engines import ENGINES
from contextframe_beam.pipelines.runners.errors import ours_of
from contextframe_beam.pipelines.runners.harness import sample_often
from contextframe_beam.pipelines.runners.local import (
    LocalProcessEnvironment,
    death_of_worker,
    stay_local,
)
from contextframe_beam.pipelines.runners.packages import check_staged, staging_failure

# Here, so that it also applies to pipelines in Beam YAML, which Beam itself starts.
stay_local(worker_handlers, worker_pool_main, local_job_service, abstract_job_service)

#: Names of the runner in this process.
LOCAL_RUNNERS = ("DirectRunner", "FnApiRunner")

# How long the report of a dead worker may take.
_PATIENCE_SECONDS = 5.0
# How long a job server may take to accept a connection.
_ENDPOINT_PATIENCE_SECONDS = 5.0


_View = TypeVar("_View", bound=PipelineOptions)


class FlinkJobOptions(PipelineOptions):
    """Options of Flink's job server that Beam's Python does not define."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument("--number_of_execution_retries", type=int)
        parser.add_argument("--execution_retry_delay", type=int)
        parser.add_argument("--flink_conf_dir")


class _Options(PipelineOptions):
    """Options that are parsed once for each class of options.

    Beam parses them each time it reads one: 140 times at the start of a run, 50 ms in total. Views
    share their values, so one view for each class is enough.
    """

    def view_as(self, cls: type[_View]) -> _View:
        views = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        view: _View = views[cls]
        return view


def pipeline_options(
    runner: str = "DirectRunner", workers: int = 1, beam_args: Sequence[str] = ()
) -> PipelineOptions:
    """Returns the options of a run.

    Args:
        runner: A runner's name.
        workers: Number of worker processes of a local run.
        beam_args: Beam's own options as on a command line.

    Raises:
        ConfigError: Beam does not know an option, or `workers` does not fit the runner.
    """
    unknown = unknown_options(beam_args)
    if unknown:
        raise ConfigError(_unknown_message(unknown[0]))
    if workers < 1:
        raise ConfigError(f"workers is {workers}; give at least 1")
    options = _Options(list(beam_args), runner=runner)
    engine = _engine_arguments(options, runner)
    if engine:
        options = _Options([*beam_args, *engine], runner=runner)
    if is_local(runner):
        direct = options.view_as(DirectOptions)
        direct.direct_num_workers = workers
    elif workers > 1:
        raise ConfigError(
            f"--workers is for local runs; set the parallelism of {runner} with its own options, "
            "as in --parallelism or --num_workers"
        )
    check_staged(options, is_local(runner) or _worker_type(options, runner) == "LOOPBACK")
    options.view_as(SetupOptions).save_main_session = False
    levels = options.view_as(WorkerOptions)
    if levels.default_sdk_harness_log_level in (None, "WARNING"):
        # Python accepts both names, but Beam's Java, and so its job servers, accept only this one.
        levels.default_sdk_harness_log_level = "WARN"
    return options


def is_local(runner: str) -> bool:
    """Returns whether a runner's name means the runner in this process."""
    return _short(runner) in LOCAL_RUNNERS


def starts_engine(options: PipelineOptions, runner: str) -> bool:
    """Returns whether the launcher starts the engine, so that it ends with the launcher."""
    if _short(runner) not in ENGINES or options.view_as(PortableOptions).job_endpoint:
        return False
    return _is_for_this_machine(options, runner)


def _is_for_this_machine(options: PipelineOptions, runner: str) -> bool:
    """Returns whether an engine's options do not name a cluster."""
    flink = str(options.view_as(FlinkRunnerOptions).flink_master)
    spark = str(options.view_as(SparkRunnerOptions).spark_master_url)
    return {
        "FlinkRunner": flink in ("[local]", "[auto]"),
        "SparkRunner": spark.partition("[")[0] == "local",
        "PrismRunner": True,
    }.get(_short(runner), False)


def _worker_type(options: PipelineOptions, runner: str) -> str:
    """Returns the type of environment that Beam chooses for an engine's workers."""
    given = options.view_as(PortableOptions).environment_type
    return given or ("LOOPBACK" if _is_for_this_machine(options, runner) else "DOCKER")


def runner_for(options: PipelineOptions, runner: str) -> PipelineRunner:
    """Returns the engine with a name.

    Raises:
        ConfigError: Beam does not have such a runner.
        CommitError: no job server listens at the address in the options.
    """
    if is_local(runner):
        return local_runner(options)
    _require_job_server(options)
    try:
        return create_runner(runner)
    except (ValueError, ImportError, AttributeError) as error:
        raise ConfigError(
            f"there is no runner {runner}; choose DirectRunner, PrismRunner, FlinkRunner, "
            "SparkRunner, PortableRunner or DataflowRunner"
        ) from error


def local_runner(options: PipelineOptions) -> PipelineRunner:
    """Returns an FnApiRunner whose workers know the pipeline's options."""
    sample_often()
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    direct = options.view_as(DirectOptions)
    provision = fn_runner.ExtendedProvisionInfo(
        beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    )
    environment = None
    if direct.direct_num_workers > 1:
        # Not one of Beam's modes, because each of them would replace our environment. It is set
        # after the options are encoded, because the workers' parsers would refuse it.
        direct.direct_running_mode = "local_processes"
        environment = LocalProcessEnvironment()
    return fn_runner.FnApiRunner(default_environment=environment, provision_info=provision)


def _engine_arguments(options: PipelineOptions, runner: str) -> list[str]:
    """Returns Beam's options for the engine on this machine, unless the options name one.

    Raises:
        ConfigError: it cannot be started.
    """
    engine = ENGINES.get(_short(runner))
    if engine is None or options.view_as(PortableOptions).job_endpoint:
        return []
    java = options.view_as(JobServerOptions).job_server_java_launcher
    if engine.needs_java and shutil.which(java) is None:
        raise ConfigError(
            f"{engine.name} needs Java, and there is no {java} on PATH: install a JDK, or name "
            "a job server that runs already with --job_endpoint=HOST:PORT"
        )
    given = options.get_all_options()[engine.option]
    if given is None:
        found = engine.path()
        return [] if found is None else [f"--{engine.option}={found}"]
    if "://" not in given and not os.path.isfile(given):
        raise ConfigError(f"--{engine.option}: there is no file {given}")
    return []


def _require_job_server(options: PipelineOptions) -> None:
    """Checks that the job server answers; Beam would wait a minute and then show a traceback."""
    endpoint = options.view_as(PortableOptions).job_endpoint
    if not endpoint or endpoint == "embed":
        return
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"--job_endpoint: {endpoint!r} is not an address; write HOST:PORT")
    try:
        address = (host.strip("[]"), int(port))
        socket.create_connection(address, _ENDPOINT_PATIENCE_SECONDS).close()
    except OSError as error:
        raise CommitError(
            f"no job server answers at {endpoint} (--job_endpoint): {error}; nothing was "
            "committed, start the job server or correct the address"
        ) from error


def _short(runner: str) -> str:
    """Returns a runner's name as Beam writes it, without its module; the case does not matter."""
    name = runner.rpartition(".")[2]
    known = {one.lower(): one for one in (*LOCAL_RUNNERS, *ENGINES)}
    return known.get(name.lower(), name)


def run_to_end(pipeline: beam.Pipeline, workers: int) -> AnyResult:
    """Runs a pipeline; raises the cause of a failure without Beam's wrapping.

    Raises:
        ContextFrameError: one of our exceptions from a step.
        CommitError: a worker process died.
        UnknownCommitError: the job server is gone, and the job may go on at its engine.
    """
    while death_of_worker(0.0):
        pass  # from an earlier run in this process
    try:
        with released():
            result = pipeline.run()
            with watched(result):
                result.wait_until_finish()
        return result
    except Exception as error:
        ours = ours_of(error)
        if ours is None:
            died = death_of_worker(_PATIENCE_SECONDS) if workers > 1 else None
            ours = CommitError(died) if died is not None else staging_failure(error)
            if ours is None and isinstance(error, grpc.RpcError):
                ours = _lost(error)
            if ours is None:
                raise
        raise ours from error


def _lost(error: Any) -> ContextFrameError | None:
    """Returns our exception for a connection that ended, or None for another answer of a server."""
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return None
    return UnknownCommitError(
        f"the connection to the job server was lost ({error.details()}), and the job may go on at "
        "its engine. To do the run again under the same id (`run_id`) is safe: it is never applied "
        "twice"
    )


def unknown_options(beam_args: Sequence[str]) -> list[str]:
    """Returns the options in `beam_args` that Beam does not know.

    Raises:
        ConfigError: the value of a known option is missing, or has the wrong type.
    """
    if not beam_args:
        return []  # the parser alone takes 3 ms
    try:
        _, unknown = _parser().parse_known_args(list(beam_args))
    except argparse.ArgumentError as error:
        name = (error.argument_name or "").partition("/")[0]
        raise ConfigError(f"{name}: {error.message}") from error
    return [text for text in unknown if text.startswith("-")] or list(unknown)


def beam_options() -> list[str]:
    """Returns the names of all options that Beam knows, as in `--parallelism`."""
    return [text for action in _parser()._actions for text in action.option_strings]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for cls in _subclasses(PipelineOptions):
        cls._add_argparse_args(_Tolerant(parser))
    return parser


class _Tolerant:
    """Allows several option classes to declare the same option, as Beam's own parsing does."""

    def __init__(self, parser: Any) -> None:
        self._parser = parser

    def add_argument(self, *args: Any, **kwargs: Any) -> None:
        kwargs.pop("required", None)
        try:
            self._parser.add_argument(*args, **kwargs)
        except argparse.ArgumentError:
            return

    add_value_provider_argument = add_argument

    def add_argument_group(self, *args: Any, **kwargs: Any) -> _Tolerant:
        return _Tolerant(self._parser.add_argument_group(*args, **kwargs))

    def add_mutually_exclusive_group(self, *args: Any, **kwargs: Any) -> _Tolerant:
        return self


def _subclasses(cls: type) -> list[Any]:
    found: list[Any] = []
    sub: Any
    for sub in cls.__subclasses__():
        found.append(sub)
        found.extend(_subclasses(sub))
    return [sub for sub in found if "_add_argparse_args" in vars(sub)]


def _unknown_message(option: str) -> str:
    name = option.split("=")[0]
    return f"no such option: {name}{nearest(name, beam_options())}"


_COUNTERS = {
    "items": runtime.ITEMS,
    "rows": runtime.ROWS,
    "unchanged": runtime.ROWS_UNCHANGED,
    "failures": runtime.FAILURES,
}

_job: PipelineResult | None = None


@contextmanager
def watched(job: Any) -> Iterator[None]:
    """Makes `how_far` report on a job until the block ends; only job servers report their jobs."""
    global _job
    _job = job if isinstance(job, PipelineResult) else None
    try:
        yield
    finally:
        _job = None


def how_far(folder: str) -> tuple[str, Mapping[str, int]]:
    """Returns the state of the job in a word, and its counts.

    Args:
        folder: The folder for the counts of workers on this machine (`connectors.read.runtime`).
    """
    here, job = runtime.totals(folder), _job
    if job is None:
        return "starting", here
    if here["items"]:
        return "running", here
    try:
        return job.state.lower(), counts_of(job)
    except grpc.RpcError:  # the job server is busy or gone: the run itself will notice
        return "running", here


def counts_of(job: PipelineResult) -> dict[str, int]:
    """Returns the counts that an engine reports for a job: items, rows, unchanged and failures."""
    # From a copy, because a result keeps the first metrics that were requested.
    found = copy.copy(job).metrics().query(MetricsFilter().with_namespace(runtime.NAMESPACE))
    counts = dict.fromkeys(_COUNTERS.values(), 0)
    for counter in found["counters"]:
        if counter.key.metric.name in counts:
            # While the job runs, engines give one of the two, and some never give the other.
            counts[counter.key.metric.name] += max(counter.attempted or 0, counter.committed or 0)
    return {name: counts[counter] for name, counter in _COUNTERS.items()}
