"""The DAGs of a project; each failed run is reported to Slack and by e-mail.

For Airflow's dags folder. `pip install apache-airflow-providers-slack apache-airflow-providers-smtp`. Connections:
slack_default (type Slack Incoming Webhook: host https://hooks.slack.com/services/, password T.../B.../...) and
smtp_default (type SMTP: host, port, login, password; extra {"from_email": "airflow@example.org"}).
"""

from pathlib import Path

from airflow.providers.slack.notifications.slack_webhook import SlackWebhookNotifier
from airflow.providers.smtp.notifications.smtp import SmtpNotifier

from headrace.airflow import dags

TEXT = "Headrace: {{ dag.dag_id }} failed, run {{ run_id }}. `headrace status` lists problems and commands."

globals().update(
    dags(
        datasets=Path(__file__).parent / "sales" / "datasets",
        on_failure_callback=[
            SlackWebhookNotifier(slack_webhook_conn_id="slack_default", text=TEXT),
            SmtpNotifier(to="oncall@example.org", subject="Headrace: {{ dag.dag_id }} failed", html_content=TEXT),
        ],
    )
)
