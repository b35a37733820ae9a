{# The number of ranks in ranked marts for each location or service. The functions read the tables and have no limit. #}
{% macro ranks_held() -%} 20 {%- endmacro %}
