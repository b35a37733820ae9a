"""Airflow DAG `replay_dead_letters`: stages dead letters that the contract now accepts."""

from headrace.airflow.dag_factory import declarations
from headrace.airflow.replay_dag import replay_dag

replay_dead_letters = replay_dag(declarations())
