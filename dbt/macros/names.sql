{#
    Names as SQL. An unquoted column `user` would give the role's name in every row; `order` would be a syntax error.
    An author's name follows SQL's rule: quoted it is unchanged, otherwise it is in lower case.
#}
{% macro quoted(name) -%}
    {{ return(name if name.startswith('"') else '"' ~ name | lower ~ '"') }}
{%- endmacro %}


{# A name without its quotes, as the catalog has it. #}
{% macro unquoted(name) -%}
    {{ return(name[1:-1] | replace('""', '"') if name.startswith('"') else name | lower) }}
{%- endmacro %}


{# A name as the catalog has it, quoted. #}
{% macro exactly(name) -%}
    {{ return('"' ~ name | replace('"', '""') ~ '"') }}
{%- endmacro %}


{# A column to select: a name, or `name as another`, quoted; any other expression as the author wrote it. #}
{% macro selected(column) -%}
    {%- set name = '("[^"]+"|[A-Za-z_][A-Za-z0-9_]*)' -%}
    {%- set names = modules.re.fullmatch(name ~ '(?: +as +' ~ name ~ ')?', column.strip(), modules.re.IGNORECASE) -%}
    {%- if names is none -%}
        {{ return(column) }}
    {%- endif -%}
    {%- set name, other = names.groups() -%}
    {{ return(quoted(name) ~ (' as ' ~ quoted(other) if other else '')) }}
{%- endmacro %}


{# A dataset's staging table. #}
{% macro staging_table(dataset) -%}
    staging.{{ exactly(dataset) }}
{%- endmacro %}


{# The rows of a dataset that reloads replaced. No dataset can have this name: names of datasets begin with a letter of the alphabet. #}
{% macro replaced_table(dataset) -%}
    staging.{{ exactly('_replaced_' ~ dataset) }}
{%- endmacro %}
