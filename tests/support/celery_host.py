"""What Airflow notes as a task's host: the worker's name, for the machine's is the same for all of them."""

import os

VARIABLE = "_WORKER_NAME"


def host_name() -> str:
    """The name that a worker was started with."""
    return os.environ.get(VARIABLE, "scheduler")
