"""The shapes of records that are generated for each dataset."""

from pathlib import Path

from headrace.settings import Settings
from tests.support import fuzz_shapes
from tests.support.fuzz_shapes import PayloadShape
from tests.support.fuzz_targets import DATASETS_DIR

DECLARED = Settings().datasets_dir

SHAPES: dict[str, tuple[Path, PayloadShape]] = {
    "jobs": (DECLARED, fuzz_shapes.JOBS),
    "events": (DECLARED, fuzz_shapes.EVENTS),
    "rides": (DECLARED, fuzz_shapes.RIDES),
    "telemetry": (DECLARED, fuzz_shapes.TELEMETRY),
    "users": (DECLARED, fuzz_shapes.USERS),
    "readings": (DATASETS_DIR, fuzz_shapes.READINGS),
}
