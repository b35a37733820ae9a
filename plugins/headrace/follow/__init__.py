"""Following: drain and build as records arrive, and the leases that keep scheduled runs away meanwhile.

May import marts, publish, ingest and all below; cli and airflow import `follow.follower`, and airflow also
`follow.leases`. Does not import monitor or verify.
"""
