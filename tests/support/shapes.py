"""The shapes of records that are generated for each dataset."""

from pathlib import Path

from headrace.settings import Settings
from tests.support import fuzz_payloads
from tests.support.fuzz_drain import DATASETS_DIR
from tests.support.fuzz_payloads import PayloadShape

DECLARED = Settings().datasets_dir

SHAPES: dict[str, tuple[Path, PayloadShape]] = {
    "jobs": (DECLARED, fuzz_payloads.JOBS),
    "events": (DECLARED, fuzz_payloads.EVENTS),
    "rides": (DECLARED, fuzz_payloads.RIDES),
    "telemetry": (DECLARED, fuzz_payloads.TELEMETRY),
    "users": (DECLARED, fuzz_payloads.USERS),
    "readings": (DATASETS_DIR, fuzz_payloads.READINGS),
}
