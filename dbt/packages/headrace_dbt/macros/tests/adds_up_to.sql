{#
    Sums of a model are those of an upstream, grain by grain. `by` is column of the model -> expression of the upstream,
    `sums` aggregate of the model -> aggregate of the upstream, `only` a condition on `upstream`.

    Each build compares the grains that the upstream's last build touched, an audit all of them.
#}
{% test adds_up_to(model, upstream, by, sums, only='true') %}

{%- set own, others = [], [] -%}
{%- for mine, theirs in sums.items() -%}
    {%- do own.append('coalesce(' ~ mine ~ ', 0) as s' ~ loop.index) -%}
    {%- do others.append('coalesce(' ~ theirs ~ ', 0) as s' ~ loop.index) -%}
{%- endfor -%}
{%- set grains, expressions, is_own, is_other = [], [], [], [] -%}
{%- for column, expression in by.items() -%}
    {%- do grains.append(column) -%}
    {%- do expressions.append(expression ~ ' as ' ~ column) -%}
    {%- do is_own.append('model.' ~ column ~ ' = grains.' ~ column) -%}
    {%- do is_other.append(expression ~ ' = grains.' ~ column) -%}
{%- endfor -%}
{%- set columns = grains | join(', ') %}

with

{%- if headrace_dbt.checks_all_rows() %}

found as (
    select {{ columns }}, {{ own | join(', ') }} from {{ model }} as model group by {{ columns }}
),

expected as (
    select {{ expressions | join(', ') }}, {{ others | join(', ') }}
    from {{ upstream }} as upstream
    where {{ only }}
    group by {{ range(1, grains | length + 1) | join(', ') }}
),

compared as (
    select {{ columns }}, to_jsonb(found) as found, to_jsonb(expected) as expected
    from found
    full join expected using ({{ columns }})
)

{%- else %}

grains as (
    select distinct {{ expressions | join(', ') }} from {{ headrace_dbt.last_changes(upstream) }} as upstream where {{ only }}
),

compared as (
    select grains.*, to_jsonb(found) as found, to_jsonb(expected) as expected
    from grains
    cross join lateral (
        select {{ own | join(', ') }} from {{ model }} as model where {{ is_own | join(' and ') }} offset 0
    ) as found
    cross join lateral (
        select {{ others | join(', ') }} from {{ upstream }} as upstream where {{ only }} and {{ is_other | join(' and ') }} offset 0
    ) as expected
)

{%- endif %}

select * from compared
where
    {% for column in grains %}{{ column }} is not null and {% endfor -%}
    coalesce(found, '{}') - '{{ grains | join("' - '") }}' is distinct from coalesce(expected, '{}') - '{{ grains | join("' - '") }}'
    and {{ headrace_dbt.has_seen_all(model) }}

{% endtest %}
