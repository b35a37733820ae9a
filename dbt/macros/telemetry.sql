{#
    The threshold of each KPI: a reading above it is degraded. A KPI of HEADRACE_TELEMETRY_KPIS has a threshold
    where HEADRACE_THRESHOLD_<KPI> is set. Returns KPI to number.
#}
{% macro thresholds() -%}
    {%- set settings = {
        'temperature': env_var('HEADRACE_THRESHOLD_TEMPERATURE', '80'),
        'humidity': env_var('HEADRACE_THRESHOLD_HUMIDITY', '70'),
        'pressure': env_var('HEADRACE_THRESHOLD_PRESSURE', '1050'),
        'vibration': env_var('HEADRACE_THRESHOLD_VIBRATION', '5'),
    } -%}
    {%- for kpi in env_var('HEADRACE_TELEMETRY_KPIS', '').split(',') if kpi.strip() -%}
        {%- set text = env_var('HEADRACE_THRESHOLD_' ~ modules.re.sub('[^A-Z0-9]', '_', kpi.strip().upper()), '') -%}
        {%- if text -%}
            {%- do settings.update({kpi.strip(): text}) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- set numbers = {} -%}
    {%- for kpi, text in settings.items() -%}
        {%- set number = text | float(default=none) -%}
        {%- if number is none -%}
            {%- do exceptions.raise_compiler_error(
                'threshold of ' ~ kpi ~ " (HEADRACE_THRESHOLD_*): found '" ~ text ~ "', expected a number"
            ) -%}
        {%- endif -%}
        {%- do numbers.update({kpi: number}) -%}
    {%- endfor -%}
    {{ return(numbers) }}
{%- endmacro %}


{# The threshold of a KPI, null where it has none. #}
{% macro threshold_of(kpi) -%}
    ({{ headrace_dbt.literal(tojson(thresholds())) }}::jsonb ->> {{ kpi }})::double precision
{%- endmacro %}
