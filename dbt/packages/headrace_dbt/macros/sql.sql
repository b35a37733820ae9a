{# Text as an SQL literal. #}
{% macro literal(text) -%}
    '{{ text | string | replace("'", "''") }}'
{%- endmacro %}


{# A name as the catalog has it, quoted. #}
{% macro exactly(name) -%}
    {{ return('"' ~ name | string | replace('"', '""') ~ '"') }}
{%- endmacro %}


{# An author's name as the catalog has it: quoted it is unchanged, otherwise it is in lower case. #}
{% macro unquoted(name) -%}
    {{ return(name[1:-1] | replace('""', '"') if name.startswith('"') else name | lower) }}
{%- endmacro %}


{# Names as the catalog has them, quoted and separated by commas, each after `table.` where a table is given. #}
{% macro column_list(names, table=none) -%}
    {%- set columns = [] -%}
    {%- for name in names -%}
        {%- do columns.append((table ~ '.' if table else '') ~ headrace_dbt.exactly(name)) -%}
    {%- endfor -%}
    {{ return(columns | join(', ')) }}
{%- endmacro %}


{# Runs SQL and returns the number of rows that it wrote. #}
{% macro run_sql(sql) -%}
    {%- call statement('headrace') -%}{{ sql }}{%- endcall -%}
    {{ return(load_result('headrace').response.rows_affected) }}
{%- endmacro %}


{# Runs a query of one text column and returns its values. #}
{% macro fetch_values(sql) -%}
    {%- call statement('headrace', fetch_result=true) -%}{{ sql }}{%- endcall -%}
    {{ return(load_result('headrace').table.columns[0].values() | list) }}
{%- endmacro %}


{# Runs a query of one JSON text and returns it as a value. #}
{% macro fetch_json(sql) -%}
    {{ return(fromjson(headrace_dbt.fetch_values(sql)[0])) }}
{%- endmacro %}


{# Raises an error about a model: where, found, expected, remedy. #}
{% macro refuse(relation, text) -%}
    {%- do exceptions.raise_compiler_error(relation.schema ~ '.' ~ relation.identifier ~ ': ' ~ text) -%}
{%- endmacro %}
