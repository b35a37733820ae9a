"""dbt in this process: builds until no claim advances, and the record of what was built.

`build` runs passes, `dbt` invokes dbt, `claims` reads and writes claims and builds, `removed` deletes what is stored of
models that the project no longer has. May import `repair`, `publish`, `ingest` and what they may import; `follow`,
`monitor`, `verify`, `cli` and `airflow` import it.
"""
