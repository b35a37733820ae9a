"""Seeded bugs of the materialization: each is a change of the package's text that a scenario has to catch.

A mutant says what to replace where, why that is a bug, and in which scenarios (tests/support/mart_scenarios.py) it
should show.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support import mart_scenarios as scenarios
from tests.support.mart_site import Site

Edit = tuple[str, str, str]  # file below macros/, text as it is, text with the bug


@dataclass(frozen=True, slots=True)
class MartMutant:
    """One seeded bug."""

    name: str
    why: str
    edits: tuple[Edit, ...]
    scenarios: tuple[Callable[[Site], None], ...]

    def changed(self, package: Path) -> dict[Path, str]:
        """The package's files with the bug; ValueError for a text that does not stand there exactly once."""
        files: dict[Path, str] = {}
        for name, old, new in self.edits:
            path = package / "macros" / name
            text = files.get(path) or path.read_text()
            if text.count(old) != 1:
                raise ValueError(f"{self.name}: {name}: found {text.count(old)} times, expected once: {old!r}")
            files[path] = text.replace(old, new)
        return files

    def apply(self, package: Path) -> None:
        """Change a copy of the package."""
        for path, text in self.changed(package).items():
            path.write_text(text)


TURN = "    lock table {{ headrace_dbt.turn_of(this) }} in share row exclusive mode;\n"
UPSTREAMS = """\
    {%- if locked %}
    lock table {{ locked | join(', ') }} in access share mode;
    {%- endif %}
"""
BEGIN = "    begin transaction isolation level repeatable read, read write;\n"
CHECKED = " or state.isolation != 'repeatable read'"
DELETED = """\
        {%- set deleted = headrace_dbt.run_sql(headrace_dbt.logged(build, is_logged, 'false', columns,
            'delete from ' ~ table ~ ' as _kept where _kept.ctid = any (array(select old_at from pg_temp._headrace_difference where old_at is not null))')) -%}
"""  # noqa: E501
INSERTED = """\
        {%- set inserted = headrace_dbt.run_sql(headrace_dbt.logged(build, is_logged, 'true', columns,
            'insert into ' ~ table ~ ' (' ~ columns ~ ') select ' ~ columns ~ ' from pg_temp._headrace_new as _new'
            ~ ' where _new.ctid = any (array(select new_at from pg_temp._headrace_difference where new_at is not null))')) -%}
"""  # noqa: E501

MART_MUTANTS = (
    MartMutant(
        "no old images",
        "a grain that a row has left is not recomputed",
        (("maintained/touched.sql", "where _headrace_build > ", "where _headrace_is_new and _headrace_build > "),),
        (scenarios.moved_rows,),
    ),
    MartMutant(
        "READ COMMITTED",
        "what commits between two statements of a build is seen by the second one alone: a row is in two grains",
        (
            ("maintained/locks.sql", BEGIN, BEGIN.replace("repeatable read", "read committed")),
            ("maintained/locks.sql", CHECKED, ""),
        ),
        (scenarios.committed_between_grains,),
    ),
    MartMutant(
        "snapshot before the locks",
        "a table that is swapped while the build waits for it is read as empty",
        (("maintained/locks.sql", TURN, "    select count(*) from pg_catalog.pg_class;\n" + TURN),),
        (scenarios.swapped_upstream, scenarios.truncated_upstream, scenarios.two_builds),
    ),
    MartMutant(
        "upstreams locked before the own turn",
        "a build that waits for its turn holds its upstreams: two builds deadlock behind a swap",
        (("maintained/locks.sql", TURN + UPSTREAMS, UPSTREAMS + TURN),),
        (scenarios.own_turn_first,),
    ),
    MartMutant(
        "floor not checked",
        "a reader takes an emptied log for one without changes",
        (("maintained/state.sql", "available.floor > seen.position | int", "false"),),
        (scenarios.trimmed_log,),
    ),
    MartMutant(
        "floor set apart from the delete",
        "a builder that is killed between leaves an emptied log with its old floor",
        (
            (
                "maintained/materialization.sql",
                "    {%- do headrace_dbt.audit(build, sql) -%}\n",
                "    {%- do headrace_dbt.audit(build, sql) -%}\n    {%- do headrace_dbt.run_sql('commit; begin') -%}\n",
            ),
        ),
        (scenarios.killed_after_the_trim,),
    ),
    MartMutant(
        "build numbers restart",
        "the changes of a model that was built again have numbers that its readers have seen",
        (
            (
                "maintained/state.sql",
                "[built.get('build', 0) + 1, state.clock if not built else 0] | max",
                "built.get('build', 0) + 1",
            ),
        ),
        (scenarios.numbers_go_on,),
    ),
    MartMutant(
        "oid ignored",
        "another table in a model's place is taken for the one that was built",
        (
            (
                "maintained/state.sql",
                "built.table_oid | string != build.state.oid | string or not",
                "not",
            ),
        ),
        (scenarios.replaced_table,),
    ),
    MartMutant(
        "hash ignored",
        "a changed SELECT changes nothing until its upstreams change",
        (("maintained/state.sql", "built.definition != build.definition", "false"),),
        (scenarios.changed_definition,),
    ),
    MartMutant(
        "`is distinct from` for `*<>`",
        "1.5 and 1.50 are taken for the same, and json cannot be compared",
        (("maintained/difference.sql", "*<>", "is distinct from"),),
        (scenarios.images,),
    ),
    MartMutant(
        "no variant for null grains",
        "rows whose grain is null are never recomputed",
        (
            (
                "maintained/compute.sql",
                "conditions.append(row ~ '.' ~ column ~ (' is null' if grain.name in pattern.nulls else",
                "conditions.append(row ~ '.' ~ column ~ (' = null' if grain.name in pattern.nulls else",
            ),
        ),
        (scenarios.null_grains,),
    ),
    MartMutant(
        "insert before delete",
        "ranks that swap places collide, although the end state is valid",
        (("maintained/difference.sql", DELETED + INSERTED, INSERTED + DELETED),),
        (scenarios.swapped_ranks,),
    ),
    MartMutant(
        "no `offset 0`",
        "Postgres flattens the lateral join and computes the whole table for one grain",
        (("maintained/compute.sql", " ~ ' offset 0) as _rows'", " ~ ') as _rows'"),),
        (scenarios.touched_grains_by_index,),
    ),
)
