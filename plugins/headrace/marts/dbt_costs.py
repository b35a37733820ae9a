"""Spares dbt work that a build in this process does not need; each is measured in docs/performance.md.

dbt begins every invocation as if it were a process's only one, and each node as if it were an invocation's only one.
"""

from contextlib import suppress
from functools import cache
from typing import Any


@cache
def spare_costs() -> None:
    """Replace the parts of dbt below, once per process. A version of dbt without such a part is left as it is."""
    for spare in (
        _spare_unlogged_events,
        _keep_plugin_modules,
        _spare_graph_summaries,
        _keep_connections,
        _keep_result_types,
    ):
        with suppress(ImportError, AttributeError):
            spare()


def _spare_unlogged_events() -> None:
    """Make no messages of level debug, which dbt makes before it asks whether a log wants them.

    dbt's own callback wants warnings alone. And for each flag of the adapter dbt walks the whole stack, files and all,
    to name the module that made it.
    """
    from dbt.tracking import track_behavior_change_warn
    from dbt_common.behavior_flags import BehaviorFlagRendered
    from dbt_common.events.base_types import EventLevel
    from dbt_common.events.event_manager import EventManager

    fire_event = EventManager.fire_event

    def fire_logged_events(self: Any, e: Any, level: Any = None, *arguments: Any, **options: Any) -> None:
        is_wanted = any(callback is not track_behavior_change_warn for callback in self.callbacks)
        if (level or e.level_tag()) != EventLevel.DEBUG or is_wanted:
            fire_event(self, e, level, *arguments, **options)

    EventManager.fire_event = fire_logged_events  # type: ignore[method-assign]
    BehaviorFlagRendered._default_source = staticmethod(lambda: "dbt")  # type: ignore[method-assign]


def _keep_plugin_modules() -> None:
    """Look for dbt's plugins (modules called dbt_*) once, not in all of sys.path for each invocation."""
    from dbt.plugins.manager import PluginManager

    PluginManager.get_prefixed_modules = staticmethod(cache(PluginManager.get_prefixed_modules))  # type: ignore[method-assign]


def _spare_graph_summaries() -> None:
    """Write no summary of the graph into target/graph_summary.json: only dbt's developers read it."""
    from dbt.compilation import Linker

    def get_graph_summary(self: Any, manifest: Any) -> dict[int, dict[str, Any]]:
        return {}

    Linker.get_graph_summary = get_graph_summary  # type: ignore[method-assign]


def _keep_connections() -> None:
    """Keep a thread's connection for its next node, without anything of the session, where dbt would open a new one.

    dbt closes them all at the end of each invocation. A profile with a role sets it only when a connection is opened.
    """
    from dbt.adapters.postgres.connections import PostgresConnectionManager

    release = PostgresConnectionManager.release

    def keep(self: Any) -> None:
        connection = self.get_if_exists()
        if connection is None or connection.state != "open" or connection.credentials.role:
            release(self)
            return
        try:
            handle = connection.handle
            handle.rollback()
            connection.transaction_open = False
            handle.autocommit = True  # `discard all` refuses to run in a transaction
            with handle.cursor() as cursor:
                cursor.execute("discard all")
            handle.autocommit = False
        except Exception:  # of whatever kind: a broken connection is closed as dbt does
            release(self)

    PostgresConnectionManager.release = keep  # type: ignore[method-assign]


def _keep_result_types() -> None:
    """Make the types of results once, not for each query: that of times compiles fifty regular expressions."""
    import agate
    from dbt_common.clients import agate_helper

    *types, _text = agate_helper.DEFAULT_TYPE_TESTER._possible_types

    def build_type_tester(text_columns: Any, string_null_values: Any = ("null", "")) -> Any:
        text = agate.data_types.Text(null_values=string_null_values)
        return agate.TypeTester(force=dict.fromkeys(text_columns, text), types=[*types, text])

    agate_helper.build_type_tester = build_type_tester
