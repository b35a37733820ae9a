"""Sample data, the demo and the case's answers; nothing that ingests depends on it.

May import all packages; `cli` imports `sample.generate` and `sample.produce`.
"""
