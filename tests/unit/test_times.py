"""Record times."""

from datetime import UTC, datetime

import pytest

from headrace.times import LATEST, TimeTexts, record_time


@pytest.mark.parametrize(
    ("timestamp_ms", "expected"),
    [
        (None, None),
        (-1, None),
        (-(2**63), None),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (1, datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)),
        (1_551_434_400_123, datetime(2019, 3, 1, 10, 0, 0, 123_000, tzinfo=UTC)),
        (253_402_214_399_999, datetime(9999, 12, 30, 23, 59, 59, 999_000, tzinfo=UTC)),
        (253_402_214_400_000, LATEST),
        (2**63 - 1, LATEST),
    ],
)
def test_record_time_of_any_number_is_a_moment_or_none(timestamp_ms: int | None, expected: datetime | None) -> None:
    assert record_time(timestamp_ms) == expected


def test_record_time_of_every_millisecond_of_a_second_is_exact() -> None:
    for ms in range(1_551_434_400_000, 1_551_434_401_000):
        at = record_time(ms)
        assert at is not None
        assert at.microsecond == ms % 1000 * 1000


def test_time_texts_are_as_copy_reads_them_and_know_the_first_and_the_last() -> None:
    texts = TimeTexts()
    assert (texts.first, texts.last) == (None, None)
    found = [texts[timestamp_ms] for timestamp_ms in (1_551_434_400_123, None, -1, 0, 2**60, 1_551_434_400_123)]
    assert found == [
        "2019-03-01 10:00:00.123+00:00",
        r"\N",
        r"\N",
        "1970-01-01 00:00:00.000+00:00",
        "9999-12-30 23:59:59.999+00:00",
        "2019-03-01 10:00:00.123+00:00",
    ]
    assert (texts.first, texts.last) == (datetime(1970, 1, 1, tzinfo=UTC), LATEST)


def test_time_texts_of_records_without_a_time_know_none() -> None:
    texts = TimeTexts()
    assert {texts[None], texts[-5]} == {r"\N"}
    assert (texts.first, texts.last) == (None, None)
