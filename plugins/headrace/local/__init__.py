"""The services of one machine: PostgreSQL, Apache Kafka, Valkey and Airflow, from wheels and jars.

`services` starts and stops them; each has a module. Nothing is installed outside HEADRACE_HOME. May import all
packages; `cli` imports it.
"""
