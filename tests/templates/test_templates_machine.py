"""The templates for one machine: systemd reads the units, cron the line, and their commands run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest
from cronsim import CronSim

from contextframe_beam import FrameDataset
from contextframe_beam.pipelines.cli.ingest import INCOMPLETE
from tests.support.cli_helpers import ROOT, cli, cli_process, environment, write_documents
from tests.support.forked import as_programs
from tests.support.http_fixture import HttpServer

BIN = Path(sys.executable).parent
UNITS = [
    f"contextframe-{name}.{kind}" for name in ("ingest", "compact") for kind in ("service", "timer")
]
RUN_ID = "0123456789abcdef0123456789abcdef"


def edited(folder: Path, file: str, *values: tuple[str, object]) -> str:
    """Changes values in a file; each of them must be in it."""
    text = (folder / file).read_text()
    for old, new in values:
        assert old in text, (file, old)
        text = text.replace(old, str(new))
    (folder / file).write_text(text)
    return text


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The systemd template, with the paths of this machine."""
    assert cli("templates", "write", "systemd", tmp_path / "units").code == 0
    folder = tmp_path / "units"
    edited(folder, "job.yaml", ("/etc/contextframe", folder), ("/var/lib/contextframe", tmp_path))
    edited(
        folder,
        "contextframe-ingest.service",
        ("/opt/contextframe/bin", BIN),
        ("/etc/contextframe", folder),
    )
    edited(folder, "contextframe-compact.service", ("/opt/contextframe/bin", BIN))
    return folder


def of_unit(text: str, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_nothing_wrong_with_the_units(units: Path, unit: str) -> None:
    verify = ["systemd-analyze", "verify", "--man=no", units / unit]
    done = subprocess.run(verify, capture_output=True, text=True)
    about_ours = [line for line in done.stderr.splitlines() if "contextframe" in line]
    assert (done.returncode, about_ours) == (0, [])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("timer", [one for one in UNITS if one.endswith("timer")])
def test_systemd_understands_when_the_timer_elapses(timer: str) -> None:
    text = (ROOT / "templates" / "systemd" / timer).read_text()
    (when,) = of_unit(text, "OnCalendar")
    subprocess.run(["systemd-analyze", "calendar", when], check=True, stdout=subprocess.DEVNULL)


def test_the_command_of_the_service_runs_as_systemd_would_run_it(
    units: Path, server: HttpServer, tmp_path: Path
) -> None:
    edited(
        units,
        "crm.yaml",
        ("https://crm.example.com", server.url),
        ("path: contacts", "path: pages?n=5"),
    )
    edited(units, "ingest.env", ("replace-me", "s3cret-of-the-crm"))
    text = (units / "contextframe-ingest.service").read_text()
    (file,), (command,) = of_unit(text, "EnvironmentFile"), of_unit(text, "ExecStart")
    given = dict(
        line.split("=", 1) for line in Path(file).read_text().splitlines() if line[:1] != "#"
    )
    given |= {"INVOCATION_ID": RUN_ID}
    words = [re.sub(r"\$\{(\w+)\}", lambda name: given[name[1]], one) for one in command.split()]
    assert words.pop(0) == f"{BIN}/contextframe-beam"
    done = cli_process(*words, env=environment(**given))
    assert done.code == 0, done.err
    assert f"run {RUN_ID}.crm," in done.out
    assert len(FrameDataset.open(str(tmp_path / "kb.lance"))) == 5
    assert "s3cret-of-the-crm" not in done.out + done.err
    sent = [one["headers"] for one in server.requests("/api/pages")]
    assert {one["Authorization"] for one in sent} == {"Bearer s3cret-of-the-crm"}


def test_what_trying_again_does_not_mend_is_not_started_again() -> None:
    text = (ROOT / "templates" / "systemd" / "contextframe-ingest.service").read_text()
    assert of_unit(text, "RestartPreventExitStatus") == [f"2 {INCOMPLETE}"]
    (command,) = of_unit(text, "ExecStart")
    assert command.endswith(" --strict")
    assert cli("ingest", "nothing", "--to", "kb.lance").code == 2


def lines_of(crontab: str) -> list[list[str]]:
    """Returns the five fields of time, the user and the command of each line."""
    lines = [line for line in crontab.splitlines() if line and not line.startswith("#")]
    return [line.split(maxsplit=6) for line in lines if not re.match(r"\w+=", line)]


def line_of(crontab: str) -> list[str]:
    """Returns that of the run."""
    (line,) = (one for one in lines_of(crontab) if " run " in one[-1])
    return line


def the_cron_files(folder: Path) -> Path:
    """Writes the template with the paths of a folder in place of its own."""
    assert cli("templates", "write", "cron", folder / "cron").code == 0
    edited(
        folder / "cron",
        "contextframe",
        ("/etc/contextframe", folder / "cron"),
        ("/var/lib/contextframe", folder),
    )
    edited(
        folder / "cron",
        "job.yaml",
        ("/srv/documents", folder / "documents"),
        ("/var/lib/contextframe", folder),
    )
    return folder / "cron" / "contextframe"


def test_the_crontab_names_times_that_come() -> None:
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    crontab = (ROOT / "templates" / "cron" / "contextframe").read_text()
    hourly, weekly = (next(CronSim(" ".join(one[:5]), start)) for one in lines_of(crontab))
    assert hourly.minute == 7
    assert (weekly.strftime("%A"), weekly.hour) == ("Sunday", 4)


def run_by_cron(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command as cron does: `\\%` is a per cent sign, and a bare one would end it."""
    assert not re.search(r"(?<!\\)%", command)
    forks = as_programs(folder / "programs")
    return subprocess.run(
        ["/bin/sh", "-c", command.replace("\\%", "%")],
        env=environment(PATH=f"{folder}/programs:/usr/bin:/bin"),
        pass_fds=[forks],
        capture_output=True,
        text=True,
    )


def test_the_line_of_the_crontab_runs_and_an_hour_is_committed_once(tmp_path: Path) -> None:
    write_documents(tmp_path / "documents", {"a.json": {"id": 1, "text": "one"}})
    the_cron_files(tmp_path)
    text = edited(tmp_path / "cron", "contextframe", ("date -u", "date -u -d 2026-01-01T07:30Z"))
    command = line_of(text)[-1]
    for _ in range(2):
        done = run_by_cron(command, tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    log = (tmp_path / "ingest.log").read_text().splitlines()
    assert ['"already_committed": false' in line for line in log] == [True, False]
    assert all('"run_id": "2026-01-01T07.documents"' in line for line in log)
    (compact,) = (one[-1] for one in lines_of(text) if " compact " in one[-1])
    done = run_by_cron(compact, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_cron_mails_what_is_missing_from_a_run(tmp_path: Path) -> None:
    write_documents(tmp_path / "documents", {"a.json": {"id": 1}, "b.json": "{cut off"})
    done = run_by_cron(line_of(the_cron_files(tmp_path).read_text())[-1], tmp_path)
    assert (done.returncode, done.stdout) == (INCOMPLETE, "")
    assert done.stderr.startswith("Warning: 1 item failed, kept in ")
    assert "b.json" in done.stderr
    assert len(FrameDataset.open(str(tmp_path / "kb.lance"))) == 1


def test_a_run_that_meets_another_one_ends_quietly(tmp_path: Path) -> None:
    command = line_of(the_cron_files(tmp_path).read_text())[-1]
    holder = subprocess.Popen(
        ["flock", tmp_path / "ingest.lock", "sh", "-c", "echo locked; read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == "locked\n"
        done = run_by_cron(command, tmp_path)
        holder.stdin.close()
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "kb.lance").exists()
