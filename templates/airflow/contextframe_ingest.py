"""Each day, what changed on the day before comes into the dataset, once."""

from __future__ import annotations

import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

from airflow.sdk import dag, get_current_context, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.timetables.interval import CronDataIntervalTimetable

COMMAND = "/opt/contextframe/bin/contextframe-beam"
SOURCE = ["api", "--config", str(Path(__file__).with_name("crm.yaml"))]
DATASET = "/var/lib/contextframe/kb.lance"
SCHEDULE = "7 1 * * *"
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
        command = [
            *(COMMAND, "ingest", *SOURCE, "--to", DATASET, "--strict", "--json"),
            # Run ids of Airflow repeat in other DAGs and tasks.
            *("--run-id", f"{instance.dag_id}.{instance.task_id}.{context['run_id']}"),
            *("--since", context["data_interval_start"].isoformat()),
            *("--until", context["data_interval_end"].isoformat()),
        ]
        # What went wrong is written to the standard error, which the task's log shows.
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode == _WRONG_USAGE:
            raise AirflowFailException("the command is wrong; its message is above")
        if done.returncode == _INCOMPLETE:
            raise AirflowFailException(f"committed and not complete, see above: {done.stdout}")
        if done.returncode:
            raise AirflowException("nothing was committed; the reason is above")
        return done.stdout

    ingest()


contextframe_ingest()
