{#
    The minute of a time, in UTC independent of the session's zone. It can be indexed: date_trunc with a zone is
    immutable only from PostgreSQL 18 on, this expression in every version. Index expressions need the parentheses.
#}
{% macro minute_of(column) -%}
    (date_trunc('minute', {{ column }} at time zone 'UTC') at time zone 'UTC')
{%- endmacro %}


{# The hour of a time, in UTC; see minute_of. #}
{% macro hour_of(column) -%}
    (date_trunc('hour', {{ column }} at time zone 'UTC') at time zone 'UTC')
{%- endmacro %}
