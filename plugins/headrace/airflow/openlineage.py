"""Lineage as the objects that Airflow's provider for OpenLineage sends. Imported only where that is installed."""

from typing import Any

from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.event_v2 import InputDataset, OutputDataset
from openlineage.client.facet_v2 import (
    column_lineage_dataset,
    datasource_dataset,
    output_statistics_output_dataset,
    schema_dataset,
)

from headrace.airflow.lineage import Lineage, LineageDataset, Origin


def operator_lineage(lineage: Lineage) -> OperatorLineage:
    """The inputs and outputs of a task, each with schema and source, outputs with columns' origins and rows."""
    return OperatorLineage(
        inputs=[InputDataset(each.namespace, each.name, facets=_facets(each)) for each in lineage.inputs],
        outputs=[
            OutputDataset(each.namespace, each.name, facets=_facets(each), outputFacets=_output_facets(each))
            for each in lineage.outputs
        ],
    )


def _facets(dataset: LineageDataset) -> dict[str, Any]:
    facets: dict[str, Any] = {
        "dataSource": datasource_dataset.DatasourceDatasetFacet(name=dataset.namespace, uri=dataset.namespace)
    }
    if dataset.fields:
        facets["schema"] = schema_dataset.SchemaDatasetFacet(
            fields=[
                schema_dataset.SchemaDatasetFacetFields(name=name, type=kind, description=text or None)
                for name, kind, text in dataset.fields
            ]
        )
    if dataset.origins:
        facets["columnLineage"] = column_lineage_dataset.ColumnLineageDatasetFacet(
            fields={
                column: column_lineage_dataset.Fields(inputFields=[_input_field(origin) for origin in origins])
                for column, origins in dataset.origins.items()
            }
        )
    return facets


def _input_field(origin: Origin) -> column_lineage_dataset.InputField:
    masked = column_lineage_dataset.Transformation(type="DIRECT", subtype="TRANSFORMATION", masking=True)
    return column_lineage_dataset.InputField(
        namespace=origin.namespace,
        name=origin.name,
        field=origin.field,
        transformations=[masked] if origin.is_masked else None,
    )


def _output_facets(dataset: LineageDataset) -> dict[str, Any]:
    if dataset.rows is None:
        return {}
    return {
        "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=dataset.rows)
    }
