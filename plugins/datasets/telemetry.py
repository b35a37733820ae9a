"""Telemetry: what devices measured; entries of a Redis stream, whose fields are all text."""

from typing import Annotated

from pydantic import BaseModel, Field, field_validator
from pydantic_core import PydanticCustomError

from headrace.contract import EpochSeconds, Float, Identifier, Text
from headrace.dataset import CONTRACT_CONFIG, Dataset, RedisStream
from headrace.settings import KPIS, ZONES, Settings

_SETTINGS = Settings.from_environment()
KNOWN_ZONES = frozenset((*ZONES, *_SETTINGS.telemetry_zones))
KNOWN_KPIS = frozenset((*KPIS, *_SETTINGS.telemetry_kpis))


class Reading(BaseModel):
    model_config = CONTRACT_CONFIG

    event_id: Identifier
    device_id: Identifier
    zone: Text
    ts: EpochSeconds
    kpi: Text
    value: Annotated[Float, Field(ge=0)]

    @field_validator("zone")
    @classmethod
    def zone_is_known(cls, zone: str) -> str:
        """One of the four zones, or of HEADRACE_TELEMETRY_ZONES."""
        if zone not in KNOWN_ZONES:
            known = ", ".join(sorted(KNOWN_ZONES))
            raise PydanticCustomError("unknown_zone", "expected one of {known}", {"known": known})
        return zone

    @field_validator("kpi")
    @classmethod
    def kpi_is_known(cls, kpi: str) -> str:
        """One of the four KPIs, or of HEADRACE_TELEMETRY_KPIS."""
        if kpi not in KNOWN_KPIS:
            known = ", ".join(sorted(KNOWN_KPIS))
            raise PydanticCustomError("unknown_kpi", "expected one of {known}", {"known": known})
        return kpi


DATASET = Dataset(
    name="telemetry",
    contract=Reading,
    source=RedisStream(stream="telemetry_stream"),
    key="event_id",
    time_column="ts",
    description="What devices measured",
)
