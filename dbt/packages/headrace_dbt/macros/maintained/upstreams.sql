{#
    What a model reads, also through ephemeral models: a list of {name, key, kind, relation, elements}. The kind is

    dataset    a table of the loader, `source('staging', ...)`; new are the batches that the model has not claimed
    model      a maintained model; new are the changes in its log
    content    anything else: a view, a seed, another source; new is a different content

    The table of a dataset's elements (meta.parent of the source) is part of the dataset: its batches are the dataset's.
#}
{% macro upstreams() -%}
    {%- set found, merged = {}, {} -%}
    {%- do headrace_dbt.collect_upstreams(model.depends_on.nodes, found) -%}
    {%- for upstream in found.values() -%}
        {%- if upstream.key in merged -%}
            {%- do merged[upstream.key].elements.extend(upstream.elements) -%}
        {%- else -%}
            {%- do merged.update({upstream.key: upstream}) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(merged.values() | list) }}
{%- endmacro %}


{# Adds the upstreams among these nodes to a dict, by their unique_id. #}
{% macro collect_upstreams(unique_ids, found) -%}
    {%- for unique_id in unique_ids if unique_id not in found -%}
        {%- set node = graph.nodes.get(unique_id) or graph.sources.get(unique_id) -%}
        {%- if node and node.config.get('materialized') == 'ephemeral' -%}
            {%- do headrace_dbt.collect_upstreams(node.depends_on.nodes, found) -%}
        {%- elif node -%}
            {%- set own = headrace_dbt.relation_of(node) -%}
            {%- set parent = (node.config.get('meta') or node.get('meta') or {}).get('parent') if node.resource_type == 'source' else none -%}
            {%- set relation = own.incorporate(path={'identifier': parent}) if parent else own -%}
            {%- set is_dataset = node.resource_type == 'source' and node.schema == headrace_dbt.staging_schema() -%}
            {%- set is_model = node.config.get('materialized') == 'maintained' -%}
            {%- do found.update({unique_id: {
                'name': parent or node.name,
                'elements': [own] if parent else [],
                'key': relation.schema ~ '.' ~ relation.identifier,
                'kind': 'dataset' if is_dataset else 'model' if is_model else 'content',
                'relation': relation,
                'unique_id': unique_id,
            }}) -%}
        {%- endif -%}
    {%- endfor -%}
{%- endmacro %}


{# The relation that ref() or source() gives for a node, with --defer too. #}
{% macro relation_of(node) -%}
    {%- if node.resource_type == 'source' -%}
        {{ return(api.Relation.create(database=node.database, schema=node.schema, identifier=node.identifier)) }}
    {%- endif -%}
    {%- set own = api.Relation.create(database=node.database, schema=node.schema, identifier=node.alias) -%}
    {%- set other = node.get('defer_relation') -%}
    {%- if other and headrace_dbt.argument('defer') and (
        (headrace_dbt.argument('favor_state') and node.unique_id not in selected_resources) or not load_cached_relation(own)
    ) -%}
        {{ return(api.Relation.create(database=other.database, schema=other.schema, identifier=other.alias)) }}
    {%- endif -%}
    {{ return(own) }}
{%- endmacro %}


{# Of upstreams that only their contents identify: the number of rows and the sum of their hashes. #}
{% macro content_of(relation) -%}
    {{ return(headrace_dbt.fetch_values(
        "select count(*) || ':' || coalesce(sum(hashtextextended(_row::text, 0)), 0) from " ~ relation.render() ~ " as _row"
    )[0]) }}
{%- endmacro %}
