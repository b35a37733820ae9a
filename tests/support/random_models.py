"""Random models of a dbt project, drawn from a seed: SELECTs on SELECTs, each with a grain that is right, or without.

A model is written once, as an author writes it. From this text come the file of the dbt project and the SQL that
recomputes the model from scratch: the names of upstreams are all that differs. Every result depends on the rows
alone, whatever their order, down to the image: a numeric is summed and carried, and never grouped, because 1.0 and
1.00 are equal and only one of them would be shown.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

Columns = dict[str, str]  # name to type: int, text, time, num, json, ints
Mapped = dict[str, dict[str, str]]  # column of the result to upstream to the expression over the upstream's columns

ROWS_MAX = 1_000  # of a result, by estimate: joins of joins would grow without end
ROWS_MIN = 4  # of what is read: a chain would end in nothing
DEPTH_MAX = 3  # models above those that read datasets, one on another
REF = re.compile(r"{{ ref\('(\w+)'\) }}")
ALIASED = re.compile(r"({{ (?:ref|source)\([^)]*\) }}) as ")
SOURCE = re.compile(r"{{ source\('(\w+)', '(\w+)'\) }}")
CURRENT = re.compile(r"{{ current\('(\w+)'\) }}")


@dataclass(frozen=True, slots=True)
class Model:
    """A model: its SELECT as the author writes it, what the config says, and what others may read.

    key: columns that tell its rows apart, if there are any. rows: an estimate. grain: None for a model whose config has
    none; a model that reads a dataset need not declare it. touched: a SELECT for each upstream whose rows lack the
    grain. options: more of the config.
    """

    name: str
    sql: str
    columns: Columns
    key: tuple[str, ...] = ()
    rows: float = 0
    grain: Mapped | None = None
    touched: Mapping[str, str] = field(default_factory=dict)
    unique: bool = False
    depth: int = 0
    options: tuple[str, ...] = ()

    @property
    def upstreams(self) -> tuple[str, ...]:
        """The models that it reads, each once."""
        return tuple(dict.fromkeys(REF.findall(self.sql)))

    @property
    def dataset(self) -> str | None:
        """The dataset that it reads, if it reads staging."""
        found = CURRENT.search(self.sql)
        return found.group(1) if found else None

    def of_type(self, *types: str) -> list[str]:
        """The columns of these types."""
        return [name for name, kind in self.columns.items() if kind in types]

    def file(self) -> str:
        """The model's file in a dbt project."""
        options = [f"grain={_grain(self.grain)}"] if self.grain is not None else []
        if self.touched:
            told = [f"'{name}': {select!r}" for name, select in self.touched.items()]
            options.append("touched={" + ", ".join(told) + "}")
        if self.unique:
            options.append(f"unique_key={list(self.key)!r}")
        options += self.options
        config = "{{ config(\n    " + ",\n    ".join(options) + ",\n) }}\n\n" if options else ""
        # with --empty a ref is a subquery that has an alias already
        return config + ALIASED.sub(r"(select * from \1) as ", self.sql) + "\n"

    def truth(self, schema: str) -> str:
        """The SQL that recomputes it from the relations of a schema, named like the models and `current_<dataset>`."""
        return in_schema(self.sql, schema)


def in_schema(sql: str, schema: str) -> str:
    """An author's SQL with relations of this schema in place of refs and datasets."""
    return SOURCE.sub(r"\1.\2", CURRENT.sub(rf"{schema}.current_\1", REF.sub(rf"{schema}.\1", sql)))


def _grain(grain: Mapped) -> str:
    """As short as the config allows: a name, a list, a dict, a dict with a dict per upstream."""
    if all(expression == column for column, of in grain.items() for expression in of.values()):
        names = list(grain)
        return repr(names[0]) if len(names) == 1 else repr(names)
    told = []
    for column, of in grain.items():
        expressions = set(of.values())
        told.append(f"{column!r}: {expressions.pop()!r}" if len(expressions) == 1 else f"{column!r}: {of!r}")
    return "{" + ", ".join(told) + "}"


@dataclass(frozen=True, slots=True)
class Drawing:
    """What a shape draws with: the seed's generator, the name of the new model, and the models that there are."""

    rng: random.Random
    name: str
    models: Sequence[Model]

    def upstream(self, fits: Callable[[Model], bool] = lambda _: True) -> Model:
        """One of the models that fit; raises DoesNotFit if there is none."""
        fitting = [model for model in self.models if model.rows >= ROWS_MIN and model.depth < DEPTH_MAX and fits(model)]
        if not fitting:
            raise DoesNotFit
        return self.rng.choice(fitting)

    def some(self, names: Sequence[str], least: int = 1, most: int = 2) -> list[str]:
        """So many of these names, in their order; raises DoesNotFit if there are fewer than the least."""
        if len(names) < least:
            raise DoesNotFit
        count = self.rng.randint(least, max(least, min(most, len(names))))
        chosen = set(self.rng.sample(list(names), count))
        return [name for name in names if name in chosen]


class DoesNotFit(Exception):
    """A shape that cannot be drawn on these upstreams."""


Shape = Callable[[Drawing], Model]


def draw_models(seed: int, count: int) -> tuple[Model, ...]:
    """So many models, those that read datasets first, each after what it reads."""
    from tests.support.random_shapes import BOTTOMS, SHAPES

    rng = random.Random(f"models {seed}")
    models = [bottom(Drawing(rng, name, ())) for name, bottom in BOTTOMS.items()]
    dealt: list[Shape] = []
    while len(models) < count:
        dealt = dealt or rng.sample(list(SHAPES), len(SHAPES))
        shape = dealt.pop()
        name = f"m{len(models):02}_{shape.__name__}"
        try:
            model = shape(Drawing(rng, name, models))
        except DoesNotFit:
            continue
        depth = 1 + max(upstream.depth for upstream in models if upstream.name in model.upstreams)
        if model.rows <= ROWS_MAX:
            models.append(_configured(rng, replace(model, depth=depth)))
    return tuple(models)


def _configured(rng: random.Random, model: Model) -> Model:
    """Some authors write no grain, and some no key."""
    if rng.random() < 0.12:
        model = replace(model, grain=None, touched={})
    return replace(model, unique=bool(model.key) and rng.random() < 0.6)
