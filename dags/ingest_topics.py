"""Airflow DAGs `ingest_<dataset>`: one for every dataset that comes from a Kafka topic or a Redis stream."""

from headrace.airflow.dag_factory import declared_datasets, ingest_dag
from headrace.dataset import File

for dataset in declared_datasets():
    if not isinstance(dataset.source, File):
        globals()[f"ingest_{dataset.name}"] = ingest_dag(dataset)
