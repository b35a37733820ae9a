"""The shapes of random models over two upstreams: joins, anti joins, self joins, unions.

Where one side lacks the grain, its changed rows are joined to the other side by a SELECT under `touched`.
"""

from collections.abc import Sequence

from tests.support.random_columns import (
    GROUPABLE,
    Piece,
    aggregates,
    bucket,
    column,
    columns_of,
    condition,
    listed,
)
from tests.support.random_models import DoesNotFit, Drawing, Model, Shape


def pair(drawing: Drawing) -> tuple[Model, Model, str, str]:
    """Two upstreams and a column of each on which they can be joined."""
    left = drawing.upstream()
    right = drawing.upstream(lambda model: model.name != left.name)
    shared = [name for name in left.of_type("int", "text") if right.columns.get(name) == left.columns[name]]
    if shared and drawing.rng.random() < 0.7:
        name = drawing.rng.choice(shared)
        return left, right, name, name
    kind = drawing.rng.choice(["int", "text"])
    mine, theirs = left.of_type(kind), right.of_type(kind)
    if not mine or not theirs:
        raise DoesNotFit
    return left, right, drawing.rng.choice(mine), drawing.rng.choice(theirs)


def prefixed(drawing: Drawing, model: Model, alias: str, taken: Sequence[Piece]) -> list[Piece]:
    """Some columns of a side, under the alias's name where theirs is taken."""
    names = {piece.name for piece in taken}
    found = []
    for name in drawing.some(list(model.columns), 1, 3):
        free = name if name not in names else f"{name}_{alias}"
        if free not in names and len(free) < 40:
            found.append(Piece(free, model.columns[name], f"{alias}.{name}"))
    return found


def on_key(name: str, left: Model, mine: str, right: Model, theirs: str) -> dict[str, dict[str, str]]:
    """The grain that is the joined column, as each side has it."""
    return {name: {left.name: mine, right.name: theirs}}


def joined(drawing: Drawing) -> Model:
    """An inner, left or full join; the grain is what it joins on."""
    left, right, mine, theirs = pair(drawing)
    kind = drawing.rng.choice(["inner", "left", "full"])
    value = f"coalesce(a.{mine}, b.{theirs})" if kind == "full" else f"a.{mine}"
    by = Piece(mine, left.columns[mine], value)
    taken = prefixed(drawing, left, "a", [by])
    taken += prefixed(drawing, right, "b", [by, *taken])
    key = _pair_key(left, right, [by, *taken], kind)
    where = f"\nwhere {condition(drawing, left, 'a')}" if kind == "inner" and drawing.rng.random() < 0.4 else ""
    sql = (
        f"select\n    {listed([by, *taken])}\nfrom {{{{ ref('{left.name}') }}}} as a\n"
        f"{kind} join {{{{ ref('{right.name}') }}}} as b on a.{mine} = b.{theirs}{where}"
    )
    rows = left.rows * max(right.rows, 1) / 6
    grain = on_key(mine, left, mine, right, theirs)
    return Model(drawing.name, sql, columns_of([by, *taken]), key, rows, grain)


def _pair_key(left: Model, right: Model, taken: Sequence[Piece], kind: str) -> tuple[str, ...]:
    """The columns of both keys, if the result holds them all and no side is missing."""
    if not left.key or not right.key or kind != "inner":
        return ()
    names = {piece.expression: piece.name for piece in taken}
    key = [names.get(f"a.{name}") for name in left.key] + [names.get(f"b.{name}") for name in right.key]
    return tuple(name for name in key if name) if all(key) else ()


def looked_up(drawing: Drawing) -> Model:
    """Rows of one side with a column of the other; the grain is the one side's own, which the other side lacks."""
    left, right, mine, theirs = pair(drawing)
    by = bucket(drawing, left)
    own = Piece(by.name, by.kind, by.of("a"))
    kind = drawing.rng.choice(["inner", "left"])
    found = aggregates(drawing, right, columns_of([own]))
    figures = [Piece(piece.name, piece.kind, piece.of("b")) for piece in found]
    where = drawing.rng.choice(
        ["", f"\nwhere {condition(drawing, right, 'b')}", f"\nwhere {condition(drawing, left, 'a')}"]
    )
    sql = (
        f"select\n    {listed([own, *figures])}\nfrom {{{{ ref('{left.name}') }}}} as a\n"
        f"{kind} join {{{{ ref('{right.name}') }}}} as b on a.{mine} = b.{theirs}{where}\ngroup by 1"
    )
    touched = (
        f"select {own.selected()} from changed "
        f"inner join {{{{ ref('{left.name}') }}}} as a on a.{mine} = changed.{theirs}"
    )
    return Model(
        drawing.name,
        sql,
        columns_of([own, *figures]),
        (by.name,),
        left.rows / 3,
        {by.name: {left.name: by.of()}},
        {right.name: touched},
    )


def anti_joined(drawing: Drawing) -> Model:
    """Rows of one side without a partner: NOT EXISTS, or a left join whose other side is null."""
    left, right, mine, theirs = pair(drawing)
    kept = list(dict.fromkeys([*left.key, mine, *drawing.some(list(left.columns), 1, 3)]))
    pieces = [Piece(name, left.columns[name], f"a.{name}") for name in left.columns if name in kept]
    more = f" and {condition(drawing, right, 'b')}" if drawing.rng.random() < 0.5 else ""
    start = f"select\n    {listed(pieces)}\nfrom {{{{ ref('{left.name}') }}}} as a\n"
    other = f"{{{{ ref('{right.name}') }}}} as b"
    sql = start + drawing.rng.choice(
        [
            f"where not exists (select from {other} where b.{theirs} = a.{mine}{more})",
            f"left join {other} on b.{theirs} = a.{mine}{more}\nwhere b.{theirs} is null",
            f"where a.{mine} not in (select b.{theirs} from {other} where b.{theirs} is not null{more})",
        ]
    )
    grain = on_key(mine, left, mine, right, theirs)
    return Model(drawing.name, sql, columns_of(pieces), left.key, left.rows / 2, grain)


def set_operation(drawing: Drawing) -> Model:
    """EXCEPT, EXCEPT ALL, INTERSECT, UNION of two columns of each side; the grain is one of them."""
    left, right, mine, theirs = pair(drawing)
    kinds = [left.columns[name] for name in left.of_type(*GROUPABLE) if name != mine]
    second = [
        (one, other)
        for one in left.of_type(*kinds)
        for other in right.of_type(left.columns[one])
        if one != mine and other != theirs and left.columns[one] in GROUPABLE
    ]
    pairs = [(mine, theirs), *([drawing.rng.choice(second)] if second else [])]
    operation = drawing.rng.choice(["except", "except all", "intersect", "intersect all", "union", "union all"])
    ours = ", ".join(f"a.{one}" for one, _ in pairs)
    others = ", ".join(f"b.{other}" for _, other in pairs)
    sql = (
        f"select {ours} from {{{{ ref('{left.name}') }}}} as a\n{operation}\n"
        f"select {others} from {{{{ ref('{right.name}') }}}} as b"
    )
    columns = {one: left.columns[one] for one, _ in pairs}
    key = () if operation.endswith("all") else tuple(columns)
    grain = {one: {left.name: one, right.name: other} for one, other in pairs[: drawing.rng.randint(1, len(pairs))]}
    return Model(drawing.name, sql, columns, key, left.rows + right.rows, grain)


def union_grouped(drawing: Drawing) -> Model:
    """Aggregates over rows of both sides, whose columns have other names."""
    left, right, mine, theirs = pair(drawing)
    sql = (
        f"select\n    {mine},\n    count(*) as n,\n    count(*) filter (where is_left) as n_left\nfrom (\n"
        f"    select {mine}, true as is_left from {{{{ ref('{left.name}') }}}}\n    union all\n"
        f"    select {theirs}, false from {{{{ ref('{right.name}') }}}}\n) as both_sides\ngroup by 1"
    )
    if mine in ("n", "n_left"):
        raise DoesNotFit
    columns = {mine: left.columns[mine], "n": "int", "n_left": "int"}
    grain = on_key(mine, left, mine, right, theirs)
    return Model(drawing.name, sql, columns, (mine,), left.rows / 2, grain)


def self_joined(drawing: Drawing) -> Model:
    """Pairs of rows of one model; by the shared column, or by the one row with the other's changes under `touched`."""
    model = drawing.upstream(lambda model: bool(model.key) and model.rows < 100)
    shared = drawing.rng.choice(model.of_type("int", "text") or _none())
    by_key = drawing.rng.random() < 0.5 and shared not in model.key
    pieces = [Piece(name, model.columns[name], f"a.{name}") for name in model.key]
    names = {piece.name for piece in pieces}
    if shared not in names:
        pieces.append(Piece(shared, model.columns[shared], f"a.{shared}"))
    pieces.append(Piece("others", "int", "count(*)"))
    if "others" in model.columns or "nearest" in model.columns:
        raise DoesNotFit
    first = model.key[0]
    pieces.append(Piece("nearest", model.columns[first], f"max(b.{first})"))
    sql = (
        f"select\n    {listed(pieces)}\nfrom {{{{ ref('{model.name}') }}}} as a\n"
        f"{drawing.rng.choice(['inner', 'left'])} join {{{{ ref('{model.name}') }}}} as b\n"
        f"    on a.{shared} = b.{shared} and b.{first} < a.{first}\n"
        f"group by {', '.join(str(number + 1) for number in range(len(pieces) - 2))}"
    )
    if not by_key:
        grain = {shared: {model.name: shared}}
        return Model(drawing.name, sql, columns_of(pieces), model.key, model.rows, grain)
    key = ", ".join(model.key)
    touched = (
        f"select {key} from changed union select {', '.join(f'a.{name}' for name in model.key)} from changed "
        f"inner join {{{{ ref('{model.name}') }}}} as a on a.{shared} = changed.{shared}"
    )
    grain = {name: {} for name in model.key}
    return Model(drawing.name, sql, columns_of(pieces), model.key, model.rows, grain, {model.name: touched})


def read_twice(drawing: Drawing) -> Model:
    """A CTE that is read twice: rows beside an aggregate over the same rows."""
    model = drawing.upstream(lambda model: bool(model.key) and not {"n", "n_max"} & set(model.columns))
    by = drawing.rng.choice(model.of_type(*GROUPABLE))
    pieces = [column(model, name) for name in dict.fromkeys([*model.key, by])]
    where = condition(drawing, model)
    sql = (
        f"with\n\nrows_read as (\n    select * from {{{{ ref('{model.name}') }}}}\n),\n\n"
        f"counted as (\n    select {by}, count(*) as n, max({model.key[0]}) as n_max\n    from rows_read\n"
        f"    where {where}\n    group by 1\n)\n\n"
        f"select\n    {listed(pieces, 'rows_read')},\n    counted.n,\n    counted.n_max\nfrom rows_read\n"
        f"left join counted on rows_read.{by} is not distinct from counted.{by}"
    )
    columns = {**columns_of(pieces), "n": "int", "n_max": model.columns[model.key[0]]}
    return Model(drawing.name, sql, columns, model.key, model.rows, {by: {model.name: by}})


def correlated(drawing: Drawing) -> Model:
    """Rows of one side, each with a subquery over the other."""
    left, right, mine, theirs = pair(drawing)
    if "partners" in left.columns:
        raise DoesNotFit
    kept = list(dict.fromkeys([*left.key, mine, *drawing.some(list(left.columns), 1, 2)]))
    pieces = [Piece(name, left.columns[name], f"a.{name}") for name in left.columns if name in kept]
    sql = (
        f"select\n    {listed(pieces)},\n"
        f"    (select count(*) from {{{{ ref('{right.name}') }}}} as b where b.{theirs} = a.{mine}) as partners\n"
        f"from {{{{ ref('{left.name}') }}}} as a"
    )
    columns = {**columns_of(pieces), "partners": "int"}
    grain = on_key(mine, left, mine, right, theirs)
    return Model(drawing.name, sql, columns, left.key, left.rows, grain)


def _none() -> list[str]:
    raise DoesNotFit


JOINS: tuple[Shape, ...] = (
    joined,
    looked_up,
    anti_joined,
    set_operation,
    union_grouped,
    self_joined,
    read_twice,
    correlated,
)
