"""Seeded bugs: each is a change of the loader's text that the suite has to catch, by a check and not by a crash.

A mutant says what to replace where, why that is a bug, and at which trials it should show. `undefended` drops the
indexes and constraints that would stop a double row in the database itself, so that the checks have to find it.
"""

from dataclasses import dataclass
from pathlib import Path

from tests.faults.schedule import Case

Edit = tuple[str, str, str]  # module of the loader, original text, text with the bug


@dataclass(frozen=True, slots=True)
class Mutant:
    """One seeded bug."""

    name: str
    why: str
    edits: tuple[Edit, ...]
    cases: tuple[Case, ...]
    undefended: bool = False

    def changed(self, plugins: Path) -> dict[Path, str]:
        """The loader's files with the bug; ValueError unless the original text occurs exactly once."""
        files: dict[Path, str] = {}
        for module, old, new in self.edits:
            path = plugins / "headrace" / module
            text = files.get(path) or path.read_text()
            if text.count(old) != 1:
                raise ValueError(f"{self.name}: {module}: found {text.count(old)} times, expected once: {old!r}")
            files[path] = text.replace(old, new)
        return files

    def apply(self, plugins: Path) -> None:
        """Change a copy of the loader."""
        for path, text in self.changed(plugins).items():
            path.write_text(text)


KILLS: tuple[Case, ...] = (
    ("kill", "advanced", 1),
    ("kill", "staged", 2),
    ("kill", "dead_lettered", 1),
    ("kill", "committed", 1),
)
NO_FAULT: tuple[Case, ...] = (("kill", "before_commit", 2), ("kill", "committed", 2))
ZOMBIES: tuple[Case, ...] = (("zombie", "fetched", 1), ("zombie", "committed", 2), ("zombie", "staged", 1))
CUTS: tuple[Case, ...] = (("cut", "after", 1), ("cut", "doubt", 2), ("cut", "after", 3))
FAST_SILENCE: Edit = ("sources/kafka.py", "SILENT_POLLS_MAX = 400", "SILENT_POLLS_MAX = 20")

ADVANCE = """\
        with connection.transaction():
            with self._watch_locks(connection, line.dataset):
                checkpoints.advance(connection, line)
            self._barrier("advanced")
"""
APPEND = """\
            with self._watch_locks(connection, line.dataset):
                seq = ledger.append_line(connection, line)
            self._barrier("before_commit")
        self._barrier("committed")
"""
COPY = "                    batch.copy(cursor, target)\n"
COPY_DEAD = "                    copy_dead_letters(cursor, batch.dead)\n"


def _swallowed(statement: str) -> str:
    return (
        "                    try:\n"
        "                        with connection.transaction():\n"
        f"        {statement}"
        "                    except psycopg.Error:\n"
        "                        pass\n"
    )


IN_DOUBT = ("ingest/commit.py", "if in_doubt and (seq := self._committed_seq(connection, line)):")


MUTANTS = (
    Mutant(
        "checkpoint before rows",
        "the checkpoint commits in a transaction of its own, before the rows: a kill between loses them",
        (
            (
                "ingest/commit.py",
                ADVANCE,
                ADVANCE.replace("            self._barrier", "        self._barrier")
                + "        with connection.transaction():\n",
            ),
        ),
        KILLS,
    ),
    Mutant(
        "rows before checkpoint",
        "the rows commit before the checkpoint: a kill between stores them twice",
        (
            (
                "ingest/commit.py",
                ADVANCE,
                '        with connection.transaction():\n            self._barrier("advanced")\n',
            ),
            (
                "ingest/commit.py",
                APPEND,
                "        with connection.transaction():\n            checkpoints.advance(connection, line)\n" + APPEND,
            ),
        ),
        (("kill", "before_commit", 1), ("kill", "before_commit", 2)),
        undefended=True,
    ),
    Mutant(
        "no compare-and-set",
        "the checkpoint moves regardless of its value: a frozen run writes its batch again",
        (("postgres/checkpoints.py", "            and next_offset = %(start)s\n", ""),),
        ZOMBIES,
        undefended=True,
    ),
    Mutant(
        "no compare-and-set, defended",
        "the same with the primary keys in place: they stop the zombie, and it does not know why",
        (("postgres/checkpoints.py", "            and next_offset = %(start)s\n", ""),),
        ZOMBIES,
    ),
    Mutant(
        "row count of the fence ignored",
        "the compare-and-set changes no row and is not checked",
        (("postgres/checkpoints.py", "    if moved != 1:", "    if moved > 1:"),),
        ZOMBIES,
        undefended=True,
    ),
    Mutant(
        "generation not checked",
        "a batch commits into a generation that was closed by an adoption",
        (("postgres/checkpoints.py", "    if found is None or not found[1]:", "    if found is None:"),),
        (("adopted_meanwhile", "fetched", 1), ("adopted_meanwhile", "committed", 2)),
    ),
    Mutant(
        "generation checked before the wait",
        "the check sees the generation as it was before the batch waited for the adoption",
        (
            (
                "postgres/checkpoints.py",
                "    moved = connection.execute(\n",
                "    closed = connection.execute(\n"
                '        "select 1 from headrace.generations where dataset = %s and generation = %s and not is_open",\n'
                "        (line.dataset, line.generation),\n"
                "    ).fetchone()\n"
                "    moved = connection.execute(\n",
            ),
            ("postgres/checkpoints.py", "    if found is None or not found[1]:", "    if found is None or closed:"),
        ),
        (("adopted_under_it", "fetched", 1),),
    ),
    Mutant(
        "end of a batch one too high",
        "the line and the checkpoint end one offset behind the batch: the next run skips a record",
        (
            (
                "ingest/batch.py",
                "            end_offset=self.end_offset,\n",
                "            end_offset=self.end_offset + 1,\n",
            ),
            (
                "ingest/batch.py",
                "            empty=self.end_offset - self.start_offset - self.records,\n",
                "            empty=self.end_offset + 1 - self.start_offset - self.records,\n",
            ),
        ),
        NO_FAULT,
    ),
    Mutant(
        "last record of a full batch dropped",
        "the record that fills a batch belongs to neither this batch nor the next",
        (
            (
                "ingest/batch.py",
                "            if line is None:\n                self._decode(record)\n",
                "            if room == 1:\n                pass\n"
                "            elif line is None:\n                self._decode(record)\n",
            ),
        ),
        NO_FAULT,
    ),
    Mutant(
        "range end inclusive",
        "the record at the pinned end is read as well, and again by the next run",
        (
            (
                "sources/kafka.py",
                "if records and records[-1].offset >= end:",
                "if records and records[-1].offset > end:",
            ),
            ("sources/kafka.py", "if record.offset < end]", "if record.offset <= end]"),
        ),
        (("growing", "fetched", 1), ("growing", "committed", 2)),
    ),
    Mutant(
        "reading begins one too late",
        "the first record of every range is never seen",
        (("sources/kafka.py", "consumer.seek(tp, position)", "consumer.seek(tp, position + 1)"),),
        NO_FAULT,
    ),
    Mutant(
        "last record's offset + 1",
        "markers and aborted records at the end of a range are never passed",
        (
            (
                "sources/kafka.py",
                "min(consumer.position(tp, timeout_ms=REQUEST_TIMEOUT_MS) or positions[tp], end)",
                "min(records[-1].offset + 1 if records else positions[tp], end)",
            ),
            FAST_SILENCE,
        ),
        NO_FAULT,
    ),
    Mutant(
        "skipped batch",
        "full batches are dropped and the next one continues after them",
        (
            (
                "ingest/drain.py",
                "                close(batch)\n                batch = Batch(",
                "                batch.rows, batch.dead, batch.tombstones = [], [], 0\n"
                "                close(batch)\n                batch = Batch(",
            ),
        ),
        NO_FAULT,
    ),
    Mutant(
        "small batches skipped",
        "a batch of a few rows moves the checkpoint and stores nothing",
        (("ingest/commit.py", "                if batch.rows:\n", "                if len(batch.rows) > 4:\n"),),
        NO_FAULT,
    ),
    Mutant(
        "checkpoint to the plan's end",
        "the first chunk moves the checkpoint to the end of the plan",
        (
            (
                "ingest/drain.py",
                "            batch.end_offset = chunk.next_offset\n",
                "            batch.end_offset = plan.ranges[partition][1]\n",
            ),
        ),
        NO_FAULT,
    ),
    Mutant(
        "swallowed COPY error",
        "an error in COPY is caught at a savepoint and the batch commits without its rows",
        (("ingest/commit.py", COPY, _swallowed(COPY)),),
        (("cancel", "copying", 1), ("cancel", "copying", 2)),
    ),
    Mutant(
        "swallowed dead letter error",
        "the same for the dead letters",
        (("ingest/commit.py", COPY_DEAD, _swallowed(COPY_DEAD)),),
        (("cancel", "copying_dead", 1), ("cancel", "copying_dead", 2)),
    ),
    Mutant(
        "dead letters dropped",
        "records that break their contract are counted and thrown away",
        (("ingest/commit.py", "                if batch.dead:\n", "                if batch.dead and False:\n"),),
        NO_FAULT,
    ),
    Mutant(
        "dead letters after the commit",
        "dead dead_letters are stored in a transaction of their own: a kill between loses them",
        (
            ("ingest/commit.py", f"                if batch.dead:\n{COPY_DEAD}", ""),
            (
                "ingest/commit.py",
                '        self._barrier("committed")\n',
                '        self._barrier("committed")\n'
                "        with connection.cursor() as cursor:\n"
                "            copy_dead_letters(cursor, batch.dead)\n",
            ),
        ),
        (("kill", "committed", 1), ("kill", "committed", 2)),
    ),
    Mutant(
        "tombstones also dead letters",
        "a tombstone is staged and dead at once, and the counts still add up",
        (
            (
                "ingest/batch.py",
                "        self.rows.append(decoded)\n",
                "        self.rows.append(decoded)\n"
                "        if deleted:\n            self._reject_record(record, Rejection('tombstone', 'a tombstone'))\n",
            ),
            (
                "ingest/batch.py",
                "        return len(self.rows) + len(self.dead) + self.ignored\n",
                "        return len(self.rows) + len(self.dead) + self.ignored - self.tombstones\n",
            ),
            (
                "ingest/batch.py",
                "            dead=len(self.dead),\n",
                "            dead=len(self.dead) - self.tombstones,\n",
            ),
        ),
        NO_FAULT,
    ),
    Mutant(
        "tombstones ignored",
        "a tombstone passes for an empty offset",
        (
            (
                "ingest/batch.py",
                "        decoded = _rejection(record) or contract.decode(record.key, record.value, record.headers)\n",
                "        if record.value is None:\n            return\n"
                "        decoded = _rejection(record) or contract.decode(record.key, record.value, record.headers)\n",
            ),
        ),
        NO_FAULT,
    ),
    Mutant(
        "tombstones counted as rows",
        "the ledger counts tombstones as staged rows",
        (
            (
                "ingest/batch.py",
                "            staged=len(self.rows) - self.tombstones,\n",
                "            staged=len(self.rows),\n",
            ),
            ("ingest/batch.py", "            tombstones=self.tombstones,\n", "            tombstones=0,\n"),
        ),
        NO_FAULT,
    ),
    Mutant(
        "read_uncommitted",
        "records of aborted transactions are stored",
        (("sources/kafka.py", '"isolation_level": "read_committed"', '"isolation_level": "read_uncommitted"'),),
        NO_FAULT,
    ),
    Mutant(
        "plan to the high watermark",
        "a run wants to read past the last stable offset and does not end while a transaction is open",
        (
            (
                "ingest/plan.py",
                "            state.partitions[partition].end_offset,\n",
                "            state.partitions[partition].high_watermark,\n",
            ),
            FAST_SILENCE,
        ),
        (("open_transaction", "fetched", 1), ("open_transaction", "committed", 1)),
    ),
    Mutant(
        "blind retry",
        "after a COMMIT without an answer the batch is tried again without looking into the ledger",
        ((*IN_DOUBT, "if in_doubt and False:"),),
        CUTS,
    ),
    Mutant(
        "commit assumed",
        "after a lost connection the batch passes for committed",
        ((*IN_DOUBT, "if in_doubt and (seq := 1):"),),
        (("cut", "before", 1), ("cut", "copy", 1), ("terminate", "staged", 1)),
    ),
    Mutant(
        "retry adds the rows again",
        "a second attempt copies every row twice",
        (
            (
                "ingest/commit.py",
                "or not self._retries.wait_to_retry(error):\n                    raise\n",
                "or not self._retries.wait_to_retry(error):\n                    raise\n"
                "                batch.rows += batch.rows\n",
            ),
        ),
        (("cut", "before", 1), ("terminate", "staged", 1), ("cancel", "copying", 1)),
        undefended=True,
    ),
    Mutant(
        "seq outside the transaction",
        "the ledger's number is taken before the batch's transaction: a kill leaves a gap",
        (
            (
                "ingest/commit.py",
                ADVANCE,
                "        number = 'update headrace.datasets set last_seq = last_seq + 1 where dataset = %s'\n"
                "        connection.execute(number, (line.dataset,))\n" + ADVANCE,
            ),
            (
                "postgres/ledger.py",
                "set last_seq = last_seq + 1 where dataset = %(dataset)s",
                "set last_seq = last_seq where dataset = %(dataset)s",
            ),
        ),
        KILLS,
    ),
    Mutant(
        "ledger line after the commit",
        "rows and checkpoint commit before the ledger's line: a kill between leaves a gap in the chain",
        (
            (
                "ingest/commit.py",
                APPEND,
                '            self._barrier("before_commit")\n'
                '        self._barrier("committed")\n'
                "        seq = ledger.append_line(connection, line)\n",
            ),
        ),
        (("kill", "committed", 1), ("kill", "committed", 2)),
        undefended=True,
    ),
    Mutant(
        "batch id of its own for each row",
        "a row names a batch that the ledger does not know",
        (
            (
                "ingest/batch.py",
                "            json_text(extra),\n            self.batch_id,\n",
                "            json_text(extra),\n            ledger.new_batch_id(),\n",
            ),
            (
                "ingest/batch.py",
                "bind(self.generation, self.partition, self.batch_id)",
                "bind(self.generation, self.partition, ledger.new_batch_id())",
            ),
        ),
        NO_FAULT,
    ),
    Mutant(
        "dead letters of the wrong partition",
        "every dead letter says partition 0",
        (
            (
                "ingest/batch.py",
                "dead_letter_row(self.dataset.name, self.generation, self.partition, record",
                "dead_letter_row(self.dataset.name, self.generation, 0, record",
            ),
        ),
        NO_FAULT,
        undefended=True,
    ),
    Mutant(
        "headers dropped",
        "rows lose their headers",
        (
            ("ingest/batch.py", "            json_text(headers_json(record.headers)),\n", "            None,\n"),
            ("ingest/batch.py", "headers_text = escaped(", "headers_text = NULL or escaped("),
        ),
        NO_FAULT,
    ),
    Mutant(
        "empty key becomes no key",
        "a null key is not an empty key",
        (("postgres/dead_letters.py", "        record.key,\n", "        record.key or None,\n"),),
        NO_FAULT,
    ),
    Mutant(
        "dead letters cleaned",
        "bytes that are not UTF-8 are replaced in a dead letter",
        (
            (
                "postgres/dead_letters.py",
                "        record.value,\n",
                '        record.value and record.value.replace(b"\\xff", b"?"),\n',
            ),
        ),
        NO_FAULT,
    ),
    Mutant(
        "decoded once per key",
        "a later record of a key is stored with the first one's contents",
        (
            (
                "ingest/batch.py",
                "        decoded = _rejection(record) or contract.decode(record.key, record.value, record.headers)\n",
                "        decoded = _CACHE.setdefault(\n"
                "            record.key, contract.decode(record.key, record.value, record.headers)\n"
                "        )\n"
                "        decoded = list(decoded) if isinstance(decoded, list) else decoded\n",
            ),
            ("ingest/batch.py", "            if line is None:\n", "            if line or not line:\n"),
            (
                "ingest/batch.py",
                "\n\n@dataclass(slots=True)\nclass Batch:\n",
                "\n\n_CACHE: dict[Any, Any] = {}\n\n\n@dataclass(slots=True)\nclass Batch:\n",
            ),
        ),
        NO_FAULT,
    ),
    Mutant(
        "fields that the contract does not name dropped",
        "_extra stays empty",
        (
            ("ingest/batch.py", "            json_text(extra),\n", "            None,\n"),
            ("contracts/copy_text.py", "        return json_cell(extra)\n", "        return NULL\n"),
        ),
        NO_FAULT,
    ),
    Mutant(
        "times cut to seconds",
        "record times lose their milliseconds",
        (("times.py", "timedelta(milliseconds=timestamp_ms)", "timedelta(seconds=timestamp_ms // 1000)"),),
        NO_FAULT,
    ),
    Mutant(
        "first record's time is the last one's",
        "the ledger's times are wrong",
        (("times.py", "record_time(min(self._known()", "record_time(max(self._known()"),),
        NO_FAULT,
    ),
    Mutant(
        "topic id not checked",
        "a topic that was created again is read on as if it were the old one",
        (
            ("ingest/identity.py", "    if state.topic_id != generation.topic_id:\n", "    if False:\n"),
            ("ingest/drain.py", "    if found != plan.topic_id:\n", "    if False:\n"),
        ),
        (("recreated", "planned", 1), ("recreated", "committed", 2)),
    ),
    Mutant(
        "topic id not checked before the commit",
        "a topic that is created again in the middle of a run goes unnoticed",
        (("ingest/drain.py", "    if found != plan.topic_id:\n", "    if False:\n"),),
        (("recreated", "fetched", 1), ("recreated", "committed", 2)),
    ),
    Mutant(
        "retention not noticed",
        "a checkpoint below the log's start moves up to it in silence",
        (
            ("ingest/identity.py", "    if next_offset < found.log_start_offset:\n", "    if False:\n"),
            ("sources/kafka.py", '"auto_offset_reset": "none"', '"auto_offset_reset": "earliest"'),
        ),
        (("retention", "", 1), ("retention", "", 2)),
    ),
    Mutant(
        "watchdog ends healthy drains",
        "a slow and healthy drain is ended by a fast one",
        (("postgres/lock_watchdog.py", "            if waited_s > limits.stuck_s:\n", "            if waited_s:\n"),),
        (("slow_beside_fast", "", 1), ("slow_beside_fast", "", 2)),
    ),
    Mutant(
        "watchdog ends no drain",
        "a frozen drain keeps its lock, and its replacement waits for ever",
        (("postgres/lock_watchdog.py", "            if waited_s > limits.stuck_s:\n", "            if False:\n"),),
        (("zombie", "copying", 1), ("zombie", "before_commit", 1)),
    ),
    Mutant(
        "plan waits for a frozen batch",
        "registering a dataset waits for whoever has counted a batch and not committed it",
        (
            (
                "postgres/checkpoints.py",
                '"where not exists (select from headrace.datasets as d where d.dataset = named.dataset) '
                'on conflict do nothing"',
                '"on conflict do nothing"',
            ),
        ),
        (("zombie", "before_commit", 1), ("silence", "", 1)),
    ),
)
