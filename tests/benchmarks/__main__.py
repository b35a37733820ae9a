"""Run the benches: each prints Markdown tables and leaves its figures as JSON in .headrace/bench/.

Exit status 1: a figure missed its limit.
"""

import argparse
import json
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from headrace.settings import ROOT
from tests.benchmarks import (
    bad_records,
    current_state,
    formats,
    freshness,
    growth,
    idle,
    many,
    profile,
    startup,
    throughput,
)
from tests.benchmarks.machine import describe
from tests.benchmarks.outcome import Bench, BenchResult, Options

BEFORE = "f9db2a7"  # the last commit before marts became plain SELECTs

BENCHES: dict[str, Bench] = {
    "throughput": throughput.run,
    "current-state": current_state.run,
    "startup": startup.run,
    "profile": profile.run,
    "bad-records": bad_records.run,
    "freshness": freshness.run,
    "growth": growth.run,
    "idle": idle.run,
    "many": many.run,
    "formats": formats.run,
}


def main() -> None:
    """Run those that are asked for, one after another: they measure the same machine."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped on the way out
    arguments = _arguments()
    options = Options(
        arguments.history, arguments.records, arguments.rounds, arguments.seconds, arguments.topic, arguments.before
    )
    names = [arguments.only] if arguments.only else list(BENCHES)
    machine = describe()
    print(machine, flush=True)
    missed: list[str] = []
    for name in names:
        began = time.monotonic()
        outcome = BENCHES[name](options, _print_line)
        print(f"\n## {name}\n\n{outcome.text}\n\n{name}: {time.monotonic() - began:.0f} s in all", flush=True)
        _keep(arguments.out, name, machine, options, outcome)
        missed += outcome.missed
    if missed:
        sys.exit("\n".join(missed))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", choices=BENCHES, help="one bench; defaults to all")
    parser.add_argument("--history", type=int, default=10_000_000, help="records of the long history")
    parser.add_argument("--records", type=int, default=10_000, help="new records a build")
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds, the first one warms up")
    parser.add_argument("--seconds", type=int, default=300, help="how long freshness is measured")
    parser.add_argument("--topic", type=int, default=1_000_000, help="records of the topic that is drained")
    parser.add_argument("--before", default=BEFORE, help="commit whose builds growth compares with")
    parser.add_argument("--out", type=Path, default=ROOT / ".headrace" / "bench", help="where the JSON goes")
    return parser.parse_args()


def _print_line(line: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {line}", file=sys.stderr, flush=True)


def _keep(folder: Path, name: str, machine: str, options: Options, outcome: BenchResult) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "bench": name,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "options": vars(options),
        "figures": outcome.figures,
        "missed": outcome.missed,
    }
    (folder / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
