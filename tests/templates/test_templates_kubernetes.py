"""The Kubernetes template: valid for the API, consistent, and its commands run."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cronsim import CronSim

from contextframe_beam import FrameDataset
from contextframe_beam.pipelines.cli.ingest import INCOMPLETE
from tests.support.cli_helpers import ROOT, cli, cli_process, environment
from tests.support.engines import free_port, java, program
from tests.support.http_fixture import HttpServer

FOLDER = ROOT / "templates" / "kubernetes"
MANIFESTS = sorted(file.name for file in FOLDER.glob("*.yaml"))
# The oldest release whose schemas know a rule of one condition, and the newest there are.
RELEASES = ("1.29", kubernetes_validate.latest_version())


def resources(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def one(name: str, kind: str) -> dict[str, Any]:
    (found,) = [resource for resource in resources(name) if resource["kind"] == kind]
    return found


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", MANIFESTS)
def test_the_manifests_fit_the_schemas_of_the_api(name: str, release: str) -> None:
    for resource in resources(name):
        kubernetes_validate.validate(resource, release, strict=True)


def test_the_schemas_refuse_a_misspelt_field() -> None:
    broken = cron_job("ingest")
    broken["spec"]["scedule"] = broken["spec"].pop("schedule")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, RELEASES[-1], strict=True)


def pod_of(resource: dict[str, Any]) -> dict[str, Any]:
    """Returns the pod that a resource makes."""
    spec = resource["spec"]
    if resource["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    pod: dict[str, Any] = spec["template"]["spec"]
    return pod


def pods(name: str) -> list[dict[str, Any]]:
    return [
        pod_of(one) for one in resources(name) if one["kind"] in ("CronJob", "Deployment", "Job")
    ]


@pytest.mark.parametrize("name", MANIFESTS)
def test_everything_that_a_pod_mounts_or_reads_is_defined(name: str) -> None:
    known = {
        (one["kind"], one["metadata"]["name"]) for file in MANIFESTS for one in resources(file)
    }
    for pod in pods(name):
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        for volume in volumes.values():
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in known
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert ("PersistentVolumeClaim", claim) in known
        for container in pod["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= set(volumes)
            for source in container.get("envFrom", []):
                assert ("Secret", source["secretRef"]["name"]) in known


def cron_job(name: str) -> dict[str, Any]:
    return next(
        one for one in resources("cronjob.yaml")
        if one["kind"] == "CronJob" and one["metadata"]["name"] == f"contextframe-{name}"
    )  # fmt: skip


def test_the_schedules_name_times_that_come() -> None:
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    hourly, weekly = (
        next(CronSim(cron_job(name)["spec"]["schedule"], start)) for name in ("ingest", "compact")
    )
    assert hourly.minute == 7
    assert (weekly.strftime("%A"), weekly.hour) == ("Sunday", 4)


def test_the_cron_job_does_what_it_says_and_a_restarted_pod_does_it_once(
    server: HttpServer, tmp_path: Path
) -> None:
    mounted(
        tmp_path,
        one("cronjob.yaml", "ConfigMap"),
        {
            "https://crm.example.com": server.url,
            "path: contacts": "path: pages?n=5",
            "/etc/contextframe": str(tmp_path),
            "/data": str(tmp_path),
        },
    )
    (container,) = pod_of(cron_job("ingest"))["containers"]
    secrets = one("cronjob.yaml", "Secret")["stringData"]
    arguments = edited(
        container["args"],
        {"$(RUN_ID)": "contextframe-ingest-29400007", "/etc/contextframe": str(tmp_path)},
    )
    receipts = [
        cli_process(*arguments, env=environment(**secrets), cwd=tmp_path).json for _ in range(2)
    ]
    assert [one["already_committed"] for one in receipts] == [False, True]
    assert {one["run_id"] for one in receipts} == {"contextframe-ingest-29400007.crm"}
    assert len(FrameDataset.open(str(tmp_path / "kb.lance"))) == 5
    (container,) = pod_of(cron_job("compact"))["containers"]
    assert cli(*edited(container["args"], {"/data": str(tmp_path)})).code == 0


def mounted(folder: Path, config_map: dict[str, Any], values: dict[str, str]) -> None:
    """Writes the files of a ConfigMap with changed values; each of them must be in one."""
    texts = list(config_map["data"].values())
    for name, text in zip(config_map["data"], edited(texts, values), strict=True):
        (folder / name).write_text(text)


def container_of(name: str, resource: str, container: str) -> dict[str, Any]:
    (pod,) = [pod_of(one) for one in resources(name) if one["metadata"]["name"] == resource
              and one["kind"] != "Service"]  # fmt: skip
    (found,) = [one for one in pod["containers"] if one["name"] == container]
    return found


def edited(words: list[str], values: dict[str, str]) -> list[str]:
    """Changes values in a command; each of them must be in it."""
    for old, new in values.items():
        assert any(old in word for word in words), (old, words)
        words = [word.replace(old, new) for word in words]
    return words


@pytest.mark.engine
@pytest.mark.xdist_group("FlinkRunner")
def test_the_flink_job_runs_on_the_job_server_and_the_workers_of_the_cluster(
    server: HttpServer, tmp_path: Path
) -> None:
    jobs, artifacts, workers = free_port(), free_port(), free_port()
    pool = container_of("flink.yaml", "contextframe-taskmanager", "python-workers")
    pool_words = edited(
        [*pool["command"], *pool["args"]], {"50000": str(workers), "0.0.0.0": "localhost"}
    )
    server_words = edited(
        container_of("flink.yaml", "contextframe-jobserver", "jobserver")["args"],
        {
            "contextframe-jobmanager:8081": "[local]",
            "0.0.0.0": "localhost",
            "8099": str(jobs),
            "8098": str(artifacts),
        },
    )
    folders = ["--artifacts-dir", str(tmp_path / "artifacts"), "--expansion-port", "0"]
    submit = edited(
        container_of("flink-job.yaml", "contextframe-backfill-1", "submit")["args"],
        {
            "/etc/contextframe-backfill": str(tmp_path / "job"),
            "$(RUN_ID)": "contextframe-backfill-1",
        },
    )
    (tmp_path / "job").mkdir()
    mounted(
        tmp_path / "job",
        one("flink-job.yaml", "ConfigMap"),
        {
            "/etc/contextframe": str(tmp_path),
            "s3://bucket": str(tmp_path),
            "contextframe-jobserver:8099": f"localhost:{jobs}",
            "contextframe-jobserver:8098": f"localhost:{artifacts}",
            "localhost:50000": f"localhost:{workers}",
            "--parallelism=4": "--parallelism=2",
        },
    )
    mounted(
        tmp_path,
        one("cronjob.yaml", "ConfigMap"),
        {"https://crm.example.com": server.url, "path: contacts": "path: pages?n=5"},
    )
    secrets = one("cronjob.yaml", "Secret")["stringData"]
    flink = java("FlinkRunner", *server_words, *folders)
    with (
        program(flink, jobs, tmp_path / "flink.log"),
        program(pool_words, workers, tmp_path / "pool.log", **secrets),
    ):
        receipts = [
            cli_process(*submit, env=environment(**secrets), cwd=tmp_path) for _ in range(2)
        ]
    assert [one.code for one in receipts] == [0, 0], receipts
    assert [one.json["already_committed"] for one in receipts] == [False, True]
    assert len(FrameDataset.open(str(tmp_path / "kb.lance"))) == 5


@pytest.mark.parametrize(
    "file", sorted((ROOT / "templates").rglob("Dockerfile")), ids=lambda file: file.parent.name
)
def test_the_linter_finds_nothing_wrong_with_the_image(file: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, file], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_is_the_one_of_all_manifests() -> None:
    text = (FOLDER / "README.md").read_text()
    (tag,) = re.findall(r"docker build --tag (\S+)", text)
    images = {one["image"] for name in MANIFESTS for pod in pods(name) for one in pod["containers"]}
    assert tag in images
    assert {one for one in images if "contextframe" in one} == {tag}


@pytest.mark.parametrize(
    ("file", "kind", "container"),
    [("cronjob.yaml", "CronJob", "ingest"), ("flink-job.yaml", "Job", "submit")],
)
def test_a_run_that_is_not_complete_fails_its_job_at_once(
    file: str, kind: str, container: str
) -> None:
    manifest = (cron_job("ingest") if kind == "CronJob" else one(file, kind))["spec"]
    job = manifest["jobTemplate"]["spec"] if kind == "CronJob" else manifest
    (pod,) = job["template"]["spec"]["containers"]
    rule = job["podFailurePolicy"]["rules"][0]
    assert "--strict" in pod["args"]
    assert pod["name"] == rule["onExitCodes"]["containerName"] == container
    assert rule["onExitCodes"]["values"] == [2, INCOMPLETE]
