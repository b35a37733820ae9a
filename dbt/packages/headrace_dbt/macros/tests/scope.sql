{# Whether tests check all rows, as the daily DAG audit_marts asks; otherwise only what the last build changed. #}
{% macro checks_all_rows() -%}
    {{ return(var('headrace_audit', '') == 'all') }}
{%- endmacro %}


{# Tests that compare models end with `where <this>`: all rows are read only in an audit, and only where they can agree. #}
{% macro in_audits(model) -%}
    {{ headrace_dbt.has_seen_all(model) if headrace_dbt.checks_all_rows() else 'false' }}
{%- endmacro %}


{# SQL that is true if a model has seen the last change of each model that it reads: until then either may be ahead. #}
{% macro has_seen_all(model) -%}
    exists (
        select from headrace.model_states
        where (schema, identifier) = ({{ headrace_dbt.literal(model.schema) }}, {{ headrace_dbt.literal(model.identifier) }})
    )
    and not exists (
        select from headrace.model_upstreams as _seen
        left join headrace.model_states as _built on _seen.upstream = _built.schema || '.' || _built.identifier
        where
            (_seen.schema, _seen.identifier) = ({{ headrace_dbt.literal(model.schema) }}, {{ headrace_dbt.literal(model.identifier) }})
            and _seen.kind = 'model'
            and (_built.table_oid::text, _built.build::text) is distinct from (_seen.identity, _seen.position)
    )
{%- endmacro %}


{# The old and new images of the rows that a model's last build changed, as a relation; none where it has no reader. #}
{% macro last_changes(model) -%}
    (
        select * from {{ headrace_dbt.log_of(model) }}
        where _headrace_build = (
            select build from headrace.model_states
            where (schema, identifier) = ({{ headrace_dbt.literal(model.schema) }}, {{ headrace_dbt.literal(model.identifier) }})
        )
    )
{%- endmacro %}
