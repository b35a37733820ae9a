"""The shapes of random models over one upstream, and the registry of all shapes.

Each is a function from what it draws with to a model; its grain, if it has one, keeps the grain promise: the rows of
a grain depend only on upstream rows that touch it. tests/integration/test_random_models.py checks that for random
changes.
"""

from collections.abc import Sequence

from tests.support.random_columns import (
    Piece,
    aggregates,
    bucket,
    buckets,
    column,
    columns_of,
    condition,
    listed,
    maybe_where,
)
from tests.support.random_joins import JOINS
from tests.support.random_models import Drawing, Mapped, Model, Shape


def grain_of(pieces: Sequence[Piece], *upstreams: str) -> Mapped:
    """The grain of a result whose columns are these expressions over each of the upstreams."""
    return {piece.name: {upstream: piece.of() for upstream in upstreams} for piece in pieces}


def jobs(drawing: Drawing) -> Model:
    """The current jobs; some have no location, and a document of type json, which has no equality."""
    where = drawing.rng.choice(["", "\nwhere jobstatus = 'SUCCESS'", "\nwhere location <> 'E'"])
    sql = (
        "select\n    jobidentifier,\n    userid,\n    nullif(location, 'F') as location,\n    servicename,\n"
        "    revenue,\n    jobcreatedate as created,\n"
        "    json_build_object('revenue', revenue, 'at', location) as doc\n"
        "from {{ current('jobs') }}" + where
    )
    columns = {"jobidentifier": "int", "userid": "int", "location": "text", "servicename": "text"}
    columns |= {"revenue": "num", "created": "time", "doc": "json"}
    return Model(drawing.name, sql, columns, ("jobidentifier",), 40)


def users(drawing: Drawing) -> Model:
    """The current users, with the same column for their location as the jobs or another one."""
    name = drawing.rng.choice(["location", "home"])
    alias = "" if name == "location" else f" as {name}"
    sql = f"select userid, location{alias} from {{{{ current('users') }}}}"
    return Model(drawing.name, sql, {"userid": "int", name: "text"}, ("userid",), 20)


def events(drawing: Drawing) -> Model:
    """The current events: of those that were sent twice the first counts, and tombstones do not."""
    where = drawing.rng.choice(["", "\nwhere event_type = 'click'"])
    sql = "select\n    event_id,\n    user_id as visitor,\n    event_type,\n    event_time as created,\n    payload\n"
    columns = {"event_id": "text", "visitor": "text", "event_type": "text", "created": "time", "payload": "json"}
    return Model(drawing.name, sql + "from {{ current('events') }}" + where, columns, ("event_id",), 20)


def rides(drawing: Drawing) -> Model:
    """The rides: without a key every record is an entity, identified by its place."""
    sql = (
        "select\n    _generation,\n    _partition,\n    _offset,\n    pulocationid as userid,\n"
        "    total_amount as revenue,\n    tpep_pickup_datetime as created\nfrom {{ current('rides') }}"
    )
    columns = {"_generation": "int", "_partition": "int", "_offset": "int"}
    columns |= {"userid": "int", "revenue": "num", "created": "time"}
    return Model(drawing.name, sql, columns, ("_generation", "_partition", "_offset"), 20)


def filtered(drawing: Drawing) -> Model:
    """Rows as they are, under a condition; the grain is any of their columns."""
    model = drawing.upstream(lambda model: bool(model.of_type("int", "text", "time")))
    kept = list(dict.fromkeys([*model.key, *drawing.some(list(model.columns), 2, 5)]))
    pieces = [column(model, name) for name in model.columns if name in kept]
    grain = drawing.some([piece.name for piece in pieces if piece.kind in ("int", "text", "time")], 1, 2)
    sql = f"select\n    {listed(pieces)}\nfrom {{{{ ref('{model.name}') }}}}\nwhere {condition(drawing, model)}"
    mapped = grain_of([column(model, name) for name in grain], model.name)
    return Model(drawing.name, sql, columns_of(pieces), model.key, model.rows, mapped)


def grouped(drawing: Drawing) -> Model:
    """Aggregates by one or two columns or expressions, with a condition below, above, or on both sides."""
    model = drawing.upstream()
    by = buckets(drawing, model)
    found = aggregates(drawing, model, columns_of(by))
    where = maybe_where(drawing, model)
    having = drawing.rng.choice(["", "", "\nhaving count(*) > 1", "\nhaving count(*) % 2 = 1"])
    positions = ", ".join(str(number + 1) for number in range(len(by)))
    sql = (
        f"select\n    {listed([*by, *found])}\nfrom {{{{ ref('{model.name}') }}}}{where}\ngroup by {positions}{having}"
    )
    # a coarser grain than the groups is right too
    grain = by if drawing.rng.random() < 0.8 else by[:1]
    return Model(
        drawing.name,
        sql,
        columns_of([*by, *found]),
        tuple(piece.name for piece in by),
        model.rows / 3,
        grain_of(grain, model.name),
    )


def above_aggregate(drawing: Drawing) -> Model:
    """A condition above an aggregate: a change that is filtered out can add or remove a group's row."""
    model = drawing.upstream(lambda model: not {"n", "size"} & set(model.columns))
    by = buckets(drawing, model)
    names = ", ".join(piece.name for piece in by)
    sql = (
        f"with\n\nrows_read as (\n    select * from {{{{ ref('{model.name}') }}}}\n),\n\n"
        f"counted as (\n    select\n    {listed(by)},\n    count(*) as n\n    from rows_read\n"
        f"    group by {', '.join(str(number + 1) for number in range(len(by)))}\n)\n\n"
        f"select\n    {names},\n    n,\n    case when n > 2 then 'many' else 'few' end as size\nfrom counted\n"
        f"where n {drawing.rng.choice(['> 1', '= 1', '< 3', '% 2 = 0'])}"
    )
    columns = {**columns_of(by), "n": "int", "size": "text"}
    key = tuple(piece.name for piece in by)
    return Model(drawing.name, sql, columns, key, model.rows / 5, grain_of(by, model.name))


def distinct(drawing: Drawing) -> Model:
    """Distinct values of two columns."""
    model = drawing.upstream(lambda model: len(model.of_type("int", "text", "time")) > 1)
    names = drawing.some(model.of_type("int", "text", "time"), 2, 3)
    pieces = [column(model, name) for name in names]
    sql = f"select distinct\n    {listed(pieces)}\nfrom {{{{ ref('{model.name}') }}}}{maybe_where(drawing, model)}"
    grain = [column(model, name) for name in drawing.some(names, 1, 2)]
    return Model(drawing.name, sql, columns_of(pieces), tuple(names), model.rows / 2, grain_of(grain, model.name))


def ranked(drawing: Drawing) -> Model:
    """The first rows of each partition by rank: ranks are unique, and two rows can swap theirs."""
    model = drawing.upstream(lambda model: bool(model.key) and "rank" not in model.columns)
    by = bucket(drawing, model)
    first = drawing.rng.choice([name for name in model.columns if model.columns[name] != "json"])
    order = ", ".join([f"{first} desc nulls last", *(name for name in model.key if name != first)])
    kept = [column(model, name) for name in dict.fromkeys([*model.key, first]) if name != by.name]
    taken = [by, *(piece for piece in kept if piece.name != "rank")]
    sql = (
        f"select *\nfrom (\n    select\n    {listed(taken)},\n"
        f"    row_number() over (partition by {by.of()} order by {order}) as rank\n"
        f"    from {{{{ ref('{model.name}') }}}}\n) as places\nwhere rank <= {drawing.rng.choice([1, 3, 5])}"
    )
    columns = {**columns_of(taken), "rank": "int"}
    return Model(drawing.name, sql, columns, (by.name, "rank"), model.rows / 2, grain_of([by], model.name))


def windowed(drawing: Drawing) -> Model:
    """Every row beside figures of its partition; each of them changes with any row of the partition."""
    model = drawing.upstream(lambda model: bool(model.key) and bool(model.of_type("int")))
    by = bucket(drawing, model)
    value = drawing.rng.choice(model.of_type("int", "num"))
    order = ", ".join(model.key)
    figures = [
        Piece("peers", "int", f"count(*) over (partition by {by.of()})"),
        Piece("peers_sum", "num", f"sum({value}) over (partition by {by.of()})"),
        Piece("before", model.columns[value], f"lag({value}) over (partition by {by.of()} order by {order})"),
        Piece("running", "num", f"sum({value}) over (partition by {by.of()} order by {order})"),
        Piece("place", "int", f"dense_rank() over (partition by {by.of()} order by {order})"),
    ]
    free = [piece for piece in figures if piece.name not in model.columns and piece.name != by.name]
    chosen = drawing.some([piece.name for piece in free], 1, 3)
    taken = [column(model, name) for name in model.key if name != by.name] + [by]
    pieces = taken + [piece for piece in free if piece.name in chosen]
    sql = f"select\n    {listed(pieces)}\nfrom {{{{ ref('{model.name}') }}}}"
    return Model(drawing.name, sql, columns_of(pieces), model.key, model.rows, grain_of([by], model.name))


def whole(drawing: Drawing) -> Model:
    """A rank or a share over all rows: nothing less than the table is a grain, and the config names none."""
    model = drawing.upstream(lambda model: bool(model.key) and "rank" not in model.columns)
    first = drawing.rng.choice([name for name in model.columns if model.columns[name] != "json"])
    order = ", ".join([f"{first} desc nulls last", *(name for name in model.key if name != first)])
    pieces = [column(model, name) for name in model.key]
    sql = (
        f"select\n    {listed(pieces)},\n    row_number() over (order by {order}) as rank,\n"
        f"    count(*) over () as of_all\nfrom {{{{ ref('{model.name}') }}}}{maybe_where(drawing, model)}\n"
        f"order by rank\nlimit {drawing.rng.choice([5, 20, 1000])}"
    )
    columns = {**columns_of(pieces), "rank": "int", "of_all": "int"}
    return Model(drawing.name, sql, columns, ("rank",), model.rows, None)


BOTTOMS: dict[str, Shape] = {"jobs": jobs, "users": users, "events": events, "rides": rides}
SHAPES: tuple[Shape, ...] = (
    filtered,
    grouped,
    above_aggregate,
    distinct,
    ranked,
    windowed,
    whole,
    *JOINS,
)
