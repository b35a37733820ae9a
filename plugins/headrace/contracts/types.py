"""The types for declarations: `from headrace.contract import Identifier, Integer, Numeric, ...`."""

from datetime import date, datetime, time
from decimal import Decimal
from typing import Annotated

from pydantic import Field, PlainValidator

from headrace.contracts.annotations import SqlType
from headrace.contracts.column_types import INT64_MAX
from headrace.contracts.columns import KEY_LENGTH_MAX
from headrace.contracts.times import parse_date, parse_epoch_ms, parse_epoch_s, parse_time, parse_timestamp

Text = Annotated[str, Field(max_length=KEY_LENGTH_MAX)]
Identifier = Annotated[str, Field(min_length=1, max_length=KEY_LENGTH_MAX)]
Integer = Annotated[int, Field(ge=-(2**63), le=INT64_MAX), SqlType("bigint")]
# exact, as the source wrote it; contracts.numbers has the bounds
Numeric = Annotated[Decimal, SqlType("numeric")]
Money = Annotated[Decimal, Field(max_digits=15, decimal_places=2), SqlType("numeric(15,2)")]
Float = Annotated[float, Field(allow_inf_nan=False)]
Boolean = bool
Timestamp = Annotated[datetime, PlainValidator(parse_timestamp)]
EpochMilliseconds = Annotated[datetime, PlainValidator(parse_epoch_ms)]
EpochSeconds = Annotated[datetime, PlainValidator(parse_epoch_s)]
Date = Annotated[date, PlainValidator(parse_date)]
TimeOfDay = Annotated[time, PlainValidator(parse_time)]
