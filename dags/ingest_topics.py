"""Airflow DAGs `ingest_<dataset>`: one for every dataset that comes from a Kafka topic."""

from headrace.airflow.dag_factory import declared_datasets, ingest_dag
from headrace.dataset import KafkaTopic

for dataset in declared_datasets():
    if isinstance(dataset.source, KafkaTopic):
        globals()[f"ingest_{dataset.name}"] = ingest_dag(dataset)
