"""A contract of jobs, valid and invalid records of it."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from headrace.contract import Identifier, Integer, Money, Text, Timestamp
from headrace.dataset import CONTRACT_CONFIG


class Job(BaseModel):
    """As plugins/datasets/jobs.py, with a key of text and money of two decimals: what these tests break."""

    model_config = CONTRACT_CONFIG

    JOBCREATEDATE: Timestamp
    JOBDATE: Timestamp
    JOBIDENTIFIER: Identifier
    JOBSTATUS: Literal["SUCCESS", "NO SUCCESS"]
    LOCATION: Text
    REVENUE: Annotated[Money, Field(ge=0)]
    SERVICENAME: Text
    USERID: Integer


VALID = (
    '{"JOBCREATEDATE":"2019-03-01 10:00:00","JOBDATE":"2019-03-01 11:00:00","JOBIDENTIFIER":"job-1",'
    '"JOBSTATUS":"SUCCESS","LOCATION":"LOC_1","REVENUE":12.5,"SERVICENAME":"S","USERID":7}'
)


def job(old: str = "", new: str = "") -> bytes:
    assert old in VALID
    return VALID.replace(old, new, 1).encode()


def with_extra(text: str) -> bytes:
    return (VALID[:-1] + "," + text + "}").encode()


# name: value, reason, json_path; the key is the body's own
BAD_JOBS: dict[str, tuple[bytes, str, str]] = {
    "invalid_utf8": (job("LOC_1", "LOC_1").replace(b"LOC_1", b"LOC_\xff"), "invalid_utf8", "$"),
    "cut_off_utf8": (job().replace(b"LOC_1", b"\xe2\x82"), "invalid_utf8", "$"),
    "byte_order_mark": (b"\xef\xbb\xbf" + job(), "invalid_json", "$"),
    "utf16": (VALID.encode("utf-16"), "invalid_utf8", "$"),
    "nul_escape_in_text": (job("LOC_1", "LOC_\\u0000"), "nul_character", "$.LOCATION"),
    "nul_escape_in_extra": (with_extra('"X":{"y":["\\u0000"]}'), "nul_character", "$.X.y[0]"),
    "nul_escape_in_extra_key": (with_extra('"X\\u0000":1'), "nul_character", "$['X\\x00']"),
    "raw_nul": (job().replace(b"LOC_1", b"LOC_\0"), "invalid_json", "$"),
    "leading_surrogate": (job("LOC_1", "\\ud800"), "invalid_json", "$"),
    "trailing_surrogate": (job("LOC_1", "\\udc00"), "invalid_json", "$"),
    "surrogate_in_extra_key": (with_extra('"\\ud800":1'), "invalid_json", "$"),
    "surrogate_key_twice": (with_extra('"\\ud800":1,"\\ud800":2'), "duplicate_key", "$..\\ud800"),
    "nul_key_twice": (with_extra('"\\u0000":1,"\\u0000":2'), "duplicate_key", "$..\\0"),
    "nan_revenue": (job("12.5", "NaN"), "out_of_range", "$.REVENUE"),
    "infinite_revenue": (job("12.5", "-Infinity"), "out_of_range", "$.REVENUE"),
    "nan_in_extra": (with_extra('"X":NaN'), "invalid_json", "$"),
    "infinity_in_extra": (with_extra('"X":[Infinity]'), "invalid_json", "$"),
    "userid_beyond_bigint": (job('"USERID":7', f'"USERID":{2**63}'), "out_of_range", "$.USERID"),
    "userid_below_bigint": (job('"USERID":7', f'"USERID":{-(2**63) - 1}'), "out_of_range", "$.USERID"),
    "userid_of_5000_digits": (job('"USERID":7', '"USERID":' + "9" * 5000), "out_of_range", "$"),
    "extra_of_5000_digits": (with_extra('"X":' + "9" * 5000), "out_of_range", "$"),
    "extra_exponent_2000": (with_extra('"X":1e2000'), "out_of_range", "$"),
    "revenue_beyond_column": (job("12.5", "10000000000000"), "out_of_range", "$.REVENUE"),
    "revenue_of_3_decimals": (job("12.5", "1.005"), "out_of_range", "$.REVENUE"),
    "revenue_a_double_would_round": (job("12.5", "1.0000000000000000000001"), "out_of_range", "$.REVENUE"),
    "revenue_a_double_would_lose": (job("12.5", "1e-400"), "out_of_range", "$.REVENUE"),
    "revenue_a_double_would_lose_capital": (job("12.5", "0.1E-999"), "out_of_range", "$.REVENUE"),
    "revenue_1e400": (job("12.5", "1e400"), "out_of_range", "$.REVENUE"),
    "revenue_negative": (job("12.5", "-0.01"), "out_of_range", "$.REVENUE"),
    "revenue_rounded_escaped_name": (job('"REVENUE":12.5', '"REVENU\\u0045":1.00000000000000001'),
                                     "out_of_range", "$.REVENUE"),
    "revenue_words": (job("12.5", '"lots"'), "wrong_type", "$.REVENUE"),
    "revenue_true": (job("12.5", "true"), "wrong_type", "$.REVENUE"),
    "revenue_null": (job("12.5", "null"), "wrong_type", "$.REVENUE"),
    "revenue_object": (job("12.5", "{}"), "wrong_type", "$.REVENUE"),
    "duplicate_key_same_value": (with_extra('"USERID":7'), "duplicate_key", "$..USERID"),
    "duplicate_key_other_value": (with_extra('"USERID":8'), "duplicate_key", "$..USERID"),
    "duplicate_key_escaped": (with_extra('"\\u0055SERID":8'), "duplicate_key", "$..USERID"),
    "duplicate_key_spaced": (with_extra('"USERID" :8'), "duplicate_key", "$..USERID"),
    "duplicate_key_nested": (with_extra('"X":{"a":1,"a":2}'), "duplicate_key", "$..a"),
    "deep_array": (b"[" * 100_000, "too_deep", "$"),
    "deep_closed_array": (b"[" * 100_000 + b"]" * 100_000, "too_deep", "$"),
    "deep_object": (b'{"a":' * 100_000, "too_deep", "$"),
    "deep_extra": (with_extra('"X":' + "[" * 100_000 + "]" * 100_000), "too_deep", "$"),
    "value_of_10_mb": (job("LOC_1", "L" * 10_000_000), "too_large", "$"),
    "location_of_256": (job("LOC_1", "L" * 256), "too_large", "$.LOCATION"),
    "userid_true": (job('"USERID":7', '"USERID":true'), "wrong_type", "$.USERID"),
    "userid_missing": (job(',"USERID":7', ""), "missing_field", "$.USERID"),
    "field_in_lower_case": (job('"USERID"', '"userid"'), "missing_field", "$.USERID"),
    "status_unknown": (job('"SUCCESS"', '"MAYBE"'), "invalid_value", "$.JOBSTATUS"),
    "status_lower_case": (job('"SUCCESS"', '"success"'), "invalid_value", "$.JOBSTATUS"),
    "year_0": (job("2019-03-01 10", "0000-03-01 10"), "invalid_timestamp", "$.JOBCREATEDATE"),
    "year_10000": (job("2019-03-01 10", "10000-03-01 10"), "invalid_timestamp", "$.JOBCREATEDATE"),
    "february_30": (job("2019-03-01 10", "2019-02-30 10"), "invalid_timestamp", "$.JOBCREATEDATE"),
    "hour_25": (job("2019-03-01 10", "2019-03-01 25"), "invalid_timestamp", "$.JOBCREATEDATE"),
    "time_of_digits": (job("2019-03-01 10:00:00", "1551434400"), "invalid_timestamp", "$.JOBCREATEDATE"),
    "time_number": (job('"2019-03-01 10:00:00"', "1551434400"), "wrong_type", "$.JOBCREATEDATE"),
    "time_empty": (job("2019-03-01 10:00:00", ""), "invalid_timestamp", "$.JOBCREATEDATE"),
    "empty": (b"", "empty_payload", "$"),
    "white_space": (b" \t\r\n ", "empty_payload", "$"),
    "null": (b"null", "wrong_type", "$"),
    "array": (b"[]", "wrong_type", "$"),
    "text": (b'"text"', "wrong_type", "$"),
    "number": (b"12", "wrong_type", "$"),
    "not_json": (b"not JSON at all", "invalid_json", "$"),
    "cut_off": (job()[:-1], "invalid_json", "$"),
    "two_documents": (job() + job(), "invalid_json", "$"),
    "single_quotes": (job().replace(b'"', b"'"), "invalid_json", "$"),
    "comment": (job() + b"// no", "invalid_json", "$"),
    "leading_zero": (job('"USERID":7', '"USERID":007'), "invalid_json", "$"),
    "raw_newline_in_text": (job("LOC_1", "LOC\n1"), "invalid_json", "$"),
    "identifier_empty": (job('"job-1"', '""'), "out_of_range", "$.JOBIDENTIFIER"),
}  # fmt: skip
