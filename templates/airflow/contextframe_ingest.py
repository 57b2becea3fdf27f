"""Each day, what changed on the day before comes into the dataset, once; a compaction each week."""

from __future__ import annotations

import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

from airflow.sdk import dag, get_current_context, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.timetables.trigger import CronTriggerTimetable

COMMAND = "/opt/contextframe/bin/contextframe-beam"
JOB = str(Path(__file__).with_name("job.yaml"))
DATASET = "/var/lib/contextframe/kb.lance"
SCHEDULE = "7 1 * * *"
COMPACTION = "37 4 * * 0"
START = datetime(2026, 1, 1, tzinfo=timezone.utc)
RETRY_AFTER = timedelta(minutes=5)
# ----- nothing to edit below -----

_WRONG_USAGE = 2
_INCOMPLETE = 3


@dag(
    dag_id="contextframe_ingest",
    # An interval for each run, also when it is started by hand or late.
    schedule=CronDataIntervalTimetable(SCHEDULE, timezone="UTC"),
    start_date=START,
    catchup=True,
    max_active_runs=4,
    default_args={"retries": 3, "retry_delay": RETRY_AFTER},
)
def contextframe_ingest():
    """Reads the data interval of the run."""

    @task
    def ingest() -> str:
        context = get_current_context()
        instance = context["ti"]
        return told(
            *("run", JOB, "--strict", "--json"),
            # Run ids of Airflow repeat in other DAGs and tasks.
            *("--run-id", f"{instance.dag_id}.{instance.task_id}.{context['run_id']}"),
            *("--since", context["data_interval_start"].isoformat()),
            *("--until", context["data_interval_end"].isoformat()),
        )

    ingest()


@dag(
    dag_id="contextframe_compact",
    schedule=CronTriggerTimetable(COMPACTION, timezone="UTC"),
    start_date=START,
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": RETRY_AFTER},
)
def contextframe_compact():
    """Brings small files of the dataset together, and its indices up to date."""

    @task
    def compact() -> str:
        return told("compact", DATASET, "--json")

    compact()


def told(*words: str) -> str:
    """Runs the command and returns what it tells; what went wrong goes to the task's log."""
    done = subprocess.run([COMMAND, *words], stdout=subprocess.PIPE, text=True)
    if done.returncode == _WRONG_USAGE:
        raise AirflowFailException("the command is wrong; its message is above")
    if done.returncode == _INCOMPLETE:
        raise AirflowFailException(f"committed and not complete, see above: {done.stdout}")
    if done.returncode:
        raise AirflowException("it failed, and another try goes on from there; see above")
    return done.stdout


contextframe_ingest()
contextframe_compact()
