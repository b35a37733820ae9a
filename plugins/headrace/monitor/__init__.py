"""Figures (lag, rows, dead letters, freshness), the problems that they show, and their output: page, metrics, terminal.

`status` reads figures (`figures`, `series`, sql/) in one snapshot, `problems` and `model_problems` find problems in
them, `grouping` makes one problem of those with one cause, `runbook` knows the section about each; `airflow_health` has
those of Airflow itself, which `airflow_probe` asks for in a shell. `metrics` and `text` show all of it. May import
`marts` and what that may import; `cli` and `airflow` import it.
"""
