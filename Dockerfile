# Airflow, dbt and Headrace in one image; docker-compose.yml runs six services from it.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:528257d48c1da0dcecc2e725d1ae34498d60c965f1241e39cd6a85a8859bdf84
FROM ${PYTHON_IMAGE}

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

# The locked dependencies, in a layer of their own: it changes only with the lock. Every one of them has a wheel, so
# that neither a compiler nor a system library is needed. --no-deps: the lock is whole, and pip 23.0 takes
# `mashumaro[msgpack]` of one package for something that `mashumaro==` does not pin (pypa/pip#9644).
COPY requirements.txt /opt/headrace/
RUN pip install --no-deps --require-hashes --only-binary :all: -r /opt/headrace/requirements.txt

# The extra `celery`, for the workers of the profile `scale`: the same lock and 15 packages more.
COPY requirements-celery.txt /opt/headrace/
RUN pip install --no-deps --require-hashes --only-binary :all: -r /opt/headrace/requirements-celery.txt

# AIRFLOW_HOME holds what Airflow writes, /opt/headrace what we ship. The volumes of docker-compose.yml are mounted
# over logs and auth and take their owner from here.
RUN useradd --uid 50000 --create-home headrace \
    && install -d -o headrace -g headrace /opt/airflow /opt/airflow/logs /opt/airflow/auth /opt/headrace/.headrace

WORKDIR /opt/headrace
COPY pyproject.toml README.md ./
COPY plugins plugins
COPY docs/runbook.md docs/runbook.md
# Editable, and so the one copy that Airflow's plugins folder and `import headrace` share: settings.py finds the
# checkout from its own place, and the numbered SQL files are beside it. setuptools comes from the lock.
# Its egg-info would be a second copy of the entry points, which Airflow reports.
RUN pip install --no-deps --no-build-isolation --editable . && rm -rf plugins/headrace.egg-info && pip check
COPY dags dags
# written to as well: dbt/target and dbt/logs, generated records
COPY --chown=headrace:headrace dbt dbt
COPY --chown=headrace:headrace data-files data-files

ENV AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/headrace/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/headrace/plugins \
    DBT_SEND_ANONYMOUS_USAGE_STATS=False

USER headrace
CMD ["headrace", "--help"]
