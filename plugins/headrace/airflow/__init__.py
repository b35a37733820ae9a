"""Headrace in Airflow: DAGs, connections, forms and the page.

The only package that imports Airflow. `dag_factory` makes the DAGs of datasets, `connections` gives tasks their
deployment, `page` serves /headrace. May import all packages; dags/ and `headrace_plugin` import it.
"""
