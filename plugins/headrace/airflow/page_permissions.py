"""What a user of the page may see and do, by Airflow's auth manager, which may ask another server each time."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.batch_apis import IsAuthorizedDagRequest
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails

from headrace.airflow.page_selection import Selection
from headrace.monitor.problems import Overview

ASKED_MAX = 500  # the most datasets for which the auth manager is asked one by one


@dataclass(frozen=True, slots=True)
class Permissions:
    """A user's permissions in Airflow: datasets whose dead letters are readable, DAGs that may be triggered."""

    readable: frozenset[str]
    triggerable: frozenset[str]


def permissions_of(overview: Overview, user: BaseUser, selection: Selection) -> Permissions:
    """The permissions that affect this page: an auth manager may ask another server about each of them."""
    ingesting = {overview.dag_of(problem.dataset) for problem in selection.problems if problem.dataset is not None}
    return Permissions(
        readable=readable_datasets(
            overview, user, [each.dataset for each in selection.datasets if each.dead_by_reason]
        ),
        triggerable=frozenset(
            dag_id
            for dag_id in (*sorted(ingesting), "build_marts", "replay_dead_letters", "verify_ingestion")
            if may(user, "POST", DagAccessEntity.RUN, dag_id)
        ),
    )


def readable_datasets(overview: Overview, user: BaseUser, datasets: Iterable[str]) -> frozenset[str]:
    """The datasets whose dead letters the user may read."""
    dags = {dataset: overview.dag_of(dataset) for dataset in datasets}
    requests = [
        IsAuthorizedDagRequest(method="GET", access_entity=DagAccessEntity.TASK_LOGS, details=DagDetails(id=dag_id))
        for dag_id in dags.values()
    ]
    if get_auth_manager().batch_is_authorized_dag(requests, user=user):
        return frozenset(dags)
    asked = list(dags)[:ASKED_MAX]
    return frozenset(each for each in asked if may(user, "GET", DagAccessEntity.TASK_LOGS, dags[each]))


def may(user: BaseUser, method: Any, entity: DagAccessEntity, dag_id: str) -> bool:
    """Whether a user may do something with a DAG."""
    return get_auth_manager().is_authorized_dag(
        method=method, access_entity=entity, details=DagDetails(id=dag_id), user=user
    )
