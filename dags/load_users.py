"""Airflow DAGs `load_<dataset>`: one for every dataset that comes from a file; `load_users` is the case's."""

from headrace.airflow.dag_factory import declared_datasets, load_dag
from headrace.dataset import File

for dataset in declared_datasets():
    if isinstance(dataset.source, File):
        globals()[f"load_{dataset.name}"] = load_dag(dataset)
