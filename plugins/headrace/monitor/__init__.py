"""Figures (lag, rows, dead letters, freshness), the problems that they show, and their output: page, metrics, terminal.

`status` reads figures (`figures`, `series`, sql/) in one snapshot, `problems` finds problems in them, `metrics` and
`text` show both. Reads only the database. May import `marts` and what that may import; `cli` and `airflow` import it.
"""
