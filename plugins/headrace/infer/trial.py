"""The sample through the inferred declaration: how many records would be staged or dead letters, and why."""

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from headrace.catalog import load_declaration
from headrace.contracts.contract import Deletion
from headrace.contracts.rejection import Rejection
from headrace.infer.sample import Sample
from headrace.settings import Settings

EXAMPLES_MAX = 5


@dataclass(slots=True)
class Trial:
    """What became of the records of a sample. examples: of each reason the first, with its coordinate."""

    staged: int = 0
    tombstones: int = 0
    ignored: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def dead(self) -> int:
        """How many would be dead letters."""
        return sum(self.reasons.values())

    def lines(self) -> list[str]:
        """The result in lines."""
        ignored = f", {self.ignored} ignored" if self.ignored else ""
        lines = [
            f"of the sample: {self.staged} staged, {self.tombstones} tombstones, {self.dead} dead letters{ignored}"
        ]
        lines += [
            f"  {reason}: {count}, such as {self.examples[reason]}" for reason, count in self.reasons.most_common()
        ]
        return lines


def try_sample(text: str, name: str, sample: Sample, settings: Settings) -> Trial:
    """Decode the sample by a declaration's text, as a drain would; raises DatasetError if the text is not one."""
    with tempfile.TemporaryDirectory(prefix="headrace-infer-") as folder:
        Path(folder, f"{name}.py").write_text(text)
        dataset = load_declaration(Path(folder), name).connected(settings)
    contract, filter = dataset.compiled, dataset.filter
    trial = Trial()
    for partition, record in sample.records:
        if filter is not None and filter.ignores(record.key, record.value, record.headers):
            trial.ignored += 1
            continue
        row = getattr(record, "rejection", None) or contract.decode(record.key, record.value, record.headers)
        if isinstance(row, Rejection):
            trial.reasons[row.reason] += 1
            trial.examples.setdefault(row.reason, f"{partition}:{record.offset} {row.json_path}: {row.detail}")
        elif isinstance(row, Deletion):
            trial.tombstones += 1
        else:
            trial.staged += 1
    return trial
