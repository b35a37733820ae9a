"""The contract against 12,000 fuzzed payloads, judged by plain Python; and against the corpus, by its file names."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from headrace.contract import Contract, Rejection
from headrace.dataset import load_dataset
from tests.support import fuzz_oracle, fuzz_shapes
from tests.support.fuzz_payloads import Payload, payloads
from tests.support.fuzz_targets import PLAIN_TARGETS, FuzzTarget
from tests.support.shapes import SHAPES

SEED = 20_261_121
TARGETS = PLAIN_TARGETS[:2]  # of a text there is little to say: tests/integration/test_fuzz_drain.py
CORPUS = sorted((Path(__file__).parents[1] / "corpus").iterdir())
REASON = re.compile(r"[a-z][a-z0-9_]*")
REASONS = {
    "duplicate_key", "empty_payload", "invalid_json", "invalid_timestamp", "invalid_utf8", "invalid_value",
    "key_mismatch",
    "missing_field", "missing_key", "nul_character", "out_of_range", "too_deep", "too_large", "wrong_type",
}  # fmt: skip


def _contract(target: FuzzTarget) -> Contract:
    return load_dataset(SHAPES[target.name][0], target.name).compiled


def _row(kinds: dict[str, str], decoded: list[Any]) -> dict[str, Any]:
    return {
        field: fuzz_oracle.exact_json(value) if kind == "jsonb" and value is not None else value
        for (field, kind), value in zip(kinds.items(), decoded, strict=True)
    }


def _said(payload: Payload, decoded: object) -> str:
    return f"{payload!r:.1000} became {decoded!r:.500}"


def _assert_storable(rejection: Rejection) -> None:
    for text in (rejection.detail, rejection.json_path):
        assert text.encode()
        assert "\0" not in text
        assert len(text) <= 600
    assert "\n" not in rejection.json_path


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_contract_given_fuzzed_payloads_agrees_with_the_oracle(target: FuzzTarget) -> None:
    contract = _contract(target)
    kinds = {column.field: column.sql_type for column in contract.columns} | {"_extra": "jsonb"}
    reasons: Counter[str] = Counter()
    for payload in target.payloads(SEED, 6_000):
        decoded = contract.decode(payload.key, payload.value)
        expected = target.oracle(payload.key, payload.value)
        if isinstance(decoded, Rejection):
            assert expected is None, _said(payload, decoded)
            assert REASON.fullmatch(decoded.reason), _said(payload, decoded)
            _assert_storable(decoded)
            reasons[decoded.reason] += 1
        else:
            assert expected is not None, _said(payload, decoded)
            assert _row(kinds, decoded) == expected, _said(payload, decoded)
    assert set(reasons) == REASONS
    assert 2_400 < reasons.total() < 4_800


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_contract_given_a_file_of_the_corpus_says_what_its_name_says(path: Path) -> None:
    outcome, _, _ = path.stem.partition("-")
    value = path.read_bytes()
    decoded = _contract(TARGETS[0]).decode(b"1", value)
    assert (decoded.reason if isinstance(decoded, Rejection) else "valid") == outcome, decoded
    assert (fuzz_oracle.jobs(b"1", value) is not None) == (outcome == "valid")


def test_fuzzed_payloads_of_a_seed_are_always_the_same() -> None:
    first, again, other = (list(payloads(fuzz_shapes.JOBS, seed, 500)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_fuzzed_payloads_are_of_every_kind() -> None:
    kinds = Counter(payload.defect for payload in payloads(fuzz_shapes.JOBS, 3, 10_000))
    assert set(kinds) > {
        "none", "tombstone", "value", "time", "not_json", "extra", "nested", "missing", "renamed", "twice",
        "twice_nested",
        "deep", "many", "long", "key", "document", "blank", "encoded", "utf8", "cut_off", "joined", "mutated",
    }  # fmt: skip
    assert any(kind.startswith("huge") for kind in kinds)


def test_corpus_holds_every_reason() -> None:
    found = {path.stem.partition("-")[0] for path in CORPUS}
    assert found == (REASONS - {"missing_key"}) | {"valid"}
