"""Airflow DAGs `load_<dataset>`: one for every dataset that comes from a file; `load_users` is the case's."""

from headrace.airflow.dag_factory import declarations, load_dags

globals().update(load_dags(declarations()))
