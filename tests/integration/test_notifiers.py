"""`make tools`: the notifiers of deploy/airflow/headrace.py reach a server for HTTP and one for mail."""

import json
import os
import shutil
import subprocess
import sys
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from tests.support.deploy_files import DEPLOY
from tests.support.mail_server import mail_server
from tests.support.openlineage import receiver
from tests.support.overlays import overlay

pytestmark = pytest.mark.faults

PROVIDER = (
    "apache-airflow-providers-slack==9.11.1", "slack-sdk==3.48.0", "aiohttp==3.14.5", "aiohappyeyeballs==2.7.1",
    "aiosignal==1.4.0", "frozenlist==1.8.0", "multidict==7.2.1", "propcache==0.5.4", "yarl==1.25.1",
)  # fmt: skip
BROKEN = "DATASET = 1\n"
# as Airflow's DAG processor calls them after the scheduler, which reads the serialized DAG, has asked for it
CALL = """
import sys
sys.path.insert(0, sys.argv[1])
import headrace_dags
from airflow.serialization.serialized_objects import DagSerialization

found = {name: dag for name, dag in vars(headrace_dags).items() if hasattr(dag, "dag_id")}
assert {"ingest_orders", "build_marts", "check_freshness"} <= found.keys()
for dag in found.values():
    assert DagSerialization.to_dict(dag)["dag"]["has_on_failure_callback"] is True, dag
dag = found["ingest_orders"]
for notify in dag.on_failure_callback:
    notify({"dag": dag, "run_id": "manual__1", "reason": "task_failure"})
"""


def test_failed_run_is_reported_to_slack_and_by_mail(tmp_path: Path) -> None:
    folder = tmp_path / "dags"
    (folder / "sales" / "datasets").mkdir(parents=True)
    (folder / "sales" / "datasets" / "orders.py").write_text(BROKEN)
    shutil.copy(DEPLOY / "airflow/headrace.py", folder / "headrace_dags.py")
    posted: list[dict[str, Any]] = []
    mails: list[Message] = []
    with receiver(posted, "/services/T1/B1/key") as url, mail_server(mails) as port:
        smtp = {"from_email": "airflow@example.org", "disable_ssl": True, "disable_tls": True}
        connections = {
            "SLACK_DEFAULT": {"conn_type": "slackwebhook", "host": f"{url}/services/", "password": "T1/B1/key"},
            "SMTP_DEFAULT": {"conn_type": "smtp", "host": "127.0.0.1", "port": port, "extra": smtp},
        }
        environment = os.environ | {
            "AIRFLOW_HOME": str(tmp_path / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "PYTHONPATH": os.pathsep.join([str(overlay(*PROVIDER)), str(Path(__file__).parents[2] / "plugins")]),
            "HEADRACE_HOME": str(tmp_path / "home"),
            **{f"AIRFLOW_CONN_{name}": json.dumps(each) for name, each in connections.items()},
        }
        done = subprocess.run(
            [sys.executable, "-c", CALL, str(folder)],
            env=environment, capture_output=True, text=True, timeout=1800, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (message,), (mail,) = posted, mails
    assert message["text"].startswith("Headrace: ingest_orders failed, run manual__1."), message
    assert (mail["Subject"], mail["To"]) == ("Headrace: ingest_orders failed", "oncall@example.org")
    (body,) = [part.get_payload(decode=True) for part in mail.walk() if part.get_content_type() == "text/html"]
    assert b"ingest_orders failed, run manual__1." in body
