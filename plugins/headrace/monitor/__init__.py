"""What is staged, behind and dead, what is wrong, and how it is shown: page, metrics, terminal.

`status` reads figures (`figures`, `series`, sql/) in one snapshot, `problems` judges them, `metrics` and `text` show
them. Reads only the database. May import `marts` and what that may import; `cli` and `airflow` import it.
"""
