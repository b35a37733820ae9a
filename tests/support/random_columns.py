"""Pieces of random SELECTs: grains, aggregates, conditions; each gives the same for the same rows in any order."""

from dataclasses import dataclass

from tests.support.random_models import Columns, DoesNotFit, Drawing, Model

GROUPABLE = ("int", "text", "time")


@dataclass(frozen=True, slots=True)
class Piece:
    """A column of a result: its name, its type, and its expression, in which {} stands before a column's name."""

    name: str
    kind: str
    expression: str

    def of(self, alias: str = "") -> str:
        """The expression over the columns of a relation with this alias."""
        return self.expression.replace("{}", f"{alias}." if alias else "")

    def selected(self, alias: str = "") -> str:
        """As it stands in a list of columns."""
        expression = self.of(alias)
        return expression if expression.rpartition(".")[2] == self.name else f"{expression} as {self.name}"


def column(model: Model, name: str) -> Piece:
    """A column as it is."""
    return Piece(name, model.columns[name], "{}" + name)


def bucket(drawing: Drawing, model: Model) -> Piece:
    """A column to group by, or an expression over one; some are null for some rows."""
    names = model.of_type(*GROUPABLE)
    if not names:
        raise DoesNotFit
    name = drawing.rng.choice(names)
    forms = {
        "int": ("{}%s", "{}%s %% 3", "nullif({}%s %% 4, 0)"),
        "text": ("{}%s", "{}%s", "nullif({}%s, 'A')", "case when {}%s < 'D' then {}%s end"),
        "time": (
            "date_trunc('minute', {}%s, 'UTC')",
            "date_trunc('hour', {}%s, 'UTC')",
            "(extract(minute from {}%s) / 5)::bigint",
        ),
    }[model.columns[name]]
    form = drawing.rng.choice(forms)
    kind = "int" if "extract" in form else model.columns[name]
    if form == "{}%s":
        return Piece(name, kind, "{}" + name)
    return Piece(f"{name}_part", kind, form % ((name,) * form.count("%s")))


def buckets(drawing: Drawing, model: Model) -> list[Piece]:
    """One or two columns to group by, of different names."""
    found = {piece.name: piece for piece in (bucket(drawing, model) for _ in range(drawing.rng.choice([1, 1, 2])))}
    return list(found.values())


def aggregates(drawing: Drawing, model: Model, taken: Columns, alias: str = "") -> list[Piece]:
    """A count and some aggregates over the model's columns, under names that are not taken."""
    found = [Piece("n", "int", "count(*)")]
    for name, kind in model.columns.items():
        found += {
            "int": [
                Piece(f"{name}_max", "int", f"max({{}}{name})"),
                Piece(f"{name}_list", "ints", f"array_agg({{}}{name} order by {{}}{name})"),
                Piece(f"{name}_kinds", "int", f"count(distinct {{}}{name})"),
                Piece(f"{name}_doc", "json", f"json_agg({{}}{name} order by {{}}{name})"),
            ],
            "text": [
                Piece(f"{name}_kinds", "int", f"count(distinct {{}}{name})"),
                Piece(f"{name}_all", "text", f"string_agg({{}}{name}, ',' order by {{}}{name})"),
                Piece(f"{name}_few", "int", f"count(*) filter (where {{}}{name} < 'C')"),
            ],
            "time": [Piece(f"{name}_last", "time", f"max({{}}{name})")],
            "num": [
                Piece(f"{name}_sum", "num", f"sum({{}}{name})"),
                Piece(f"{name}_all", "num", f"coalesce(sum({{}}{name}), 0)"),
                Piece(f"{name}_mean", "num", f"avg({{}}{name})"),
            ],
        }.get(kind, [])
    free = {piece.name: piece for piece in found if piece.name not in taken and len(piece.name) < 40}
    return [free[name] for name in drawing.some(list(free), 1, 3)]


def condition(drawing: Drawing, model: Model, alias: str = "") -> str:
    """What some rows of the model fulfil, and some do not."""
    prefix = f"{alias}." if alias else ""
    forms = {
        "int": ("{} % 3 <> 0", "{} > 1", "{} is not null", "{} in (1, 2, 3, 5, 8, 13)"),
        "text": ("{} <> 'B'", "{} < 'E'", "{} is not null", "coalesce({}, 'A') <= 'C'"),
        "time": ("{} is not null", "{} >= timestamptz '2026-01-01 10:02+00'"),
        "num": ("{} > 1", "coalesce({}, 0) < 4"),
    }
    names = model.of_type(*forms)
    if not names:
        raise DoesNotFit
    name = drawing.rng.choice(names)
    return drawing.rng.choice(forms[model.columns[name]]).replace("{}", prefix + name)


def maybe_where(drawing: Drawing, model: Model, alias: str = "") -> str:
    """A WHERE, or nothing."""
    return f"\nwhere {condition(drawing, model, alias)}" if drawing.rng.random() < 0.4 else ""


def listed(pieces: list[Piece], alias: str = "") -> str:
    """A list of columns."""
    return ",\n    ".join(piece.selected(alias) for piece in pieces)


def columns_of(pieces: list[Piece]) -> Columns:
    """The columns of a result."""
    return {piece.name: piece.kind for piece in pieces}
