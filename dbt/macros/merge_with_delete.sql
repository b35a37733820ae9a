{#
    The incremental strategy of the marts. A model's select returns one row for every touched key or bucket; a row for
    which the model's meta `emptied` is true deletes its key from the table and is never inserted.
    An unchanged row is not written again.
#}
{% macro get_incremental_merge_with_delete_sql(arg_dict) -%}
    {%- set keys = [] -%}
    {%- for key in ([arg_dict.unique_key] if arg_dict.unique_key is string else arg_dict.unique_key) -%}
        {%- do keys.append(exactly(unquoted(key))) -%}
    {%- endfor -%}
    {%- set columns = [] -%}
    {%- for column in arg_dict.dest_columns -%}
        {%- do columns.append(exactly(column.name)) -%}
    {%- endfor -%}
    {%- set others = columns | reject('in', keys) | list -%}
    merge into {{ arg_dict.target_relation }} as kept
    using (
        select *, coalesce({{ config.get('meta').emptied }}, false) as _is_emptied
        from {{ arg_dict.temp_relation }}
    ) as touched
    on {% for key in keys %}{{ 'and ' if not loop.first }}kept.{{ key }} = touched.{{ key }} {% endfor %}
    when matched and touched._is_emptied then delete
    when matched and (kept.{{ others | join(', kept.') }}) is distinct from (touched.{{ others | join(', touched.') }})
        then update set {% for column in others %}{{ column }} = touched.{{ column }}{{ ', ' if not loop.last }}{% endfor %}
    when not matched and not touched._is_emptied
        then insert ({{ columns | join(', ') }}) values (touched.{{ columns | join(', touched.') }})
{%- endmacro %}


{# The end of a model's last select: a full build has no row to delete. #}
{% macro without_emptied() -%}
    {%- if execute and not is_incremental() -%}
        where not coalesce({{ config.get('meta').emptied }}, false)
    {%- endif -%}
{%- endmacro %}
