"""Names that are valid in Python and in SQL without quotes; a field whose name is neither gets another and an alias."""

import keyword
import re
import unicodedata
from collections.abc import Iterable

from pydantic import BaseModel

from headrace.contracts.columns import COLUMN_NAME, SYSTEM_COLUMNS
from headrace.dataset import NAME
from headrace.infer.draft import FieldDraft

NAME_LENGTH_MAX = 41

# Postgres, appendix C: key words that are reserved, also those that may be the name of a function or a type
SQL_RESERVED = frozenset((
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "authorization", "binary",
    "both", "case", "cast", "check", "collate", "collation", "column", "concurrently", "constraint", "create",
    "cross", "current_catalog", "current_date", "current_role", "current_schema", "current_time",
    "current_timestamp", "current_user", "default", "deferrable", "desc", "distinct", "do", "else", "end",
    "except", "false", "fetch", "for", "foreign", "freeze", "from", "full", "grant", "group", "having", "ilike",
    "in", "initially", "inner", "intersect", "into", "is", "isnull", "join", "lateral", "leading", "left",
    "like", "limit", "localtime", "localtimestamp", "natural", "not", "notnull", "null", "offset", "on", "only",
    "or", "order", "outer", "overlaps", "placing", "primary", "references", "returning", "right", "select",
    "session_user", "similar", "some", "symmetric", "system_user", "table", "tablesample", "then", "to",
    "trailing", "true", "union", "unique", "user", "using", "variadic", "verbose", "when", "where", "window",
    "with",
))  # fmt: skip
# what a declaration imports: a field of such a name with a default would replace the type for the fields below it
IMPORTED = frozenset((
    "Any", "Annotated", "BaseModel", "Boolean", "CONTRACT_CONFIG", "Dataset", "Date", "EpochMilliseconds",
    "EpochSeconds", "Field", "File", "Float", "Identifier", "Integer", "KafkaTopic", "Literal", "Numeric",
    "RedisStream", "Text", "TimeOfDay", "Timestamp", "UUID",
))  # fmt: skip
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def words_of(name: str) -> list[str]:
    """The words of a name in lower case: of `createdAt`, `created_at` and `CreatedAt` the same two."""
    return [word.lower() for word in _WORD.findall(name)]


def name_fields(fields: Iterable[FieldDraft]) -> None:
    """Give each field its name in Python. No two have the same in lower case."""
    taken: set[str] = set()
    for field in fields:
        field.name = _field_name(field.source_name, taken)
        taken.add(field.column)


def _field_name(source_name: str, taken: set[str]) -> str:
    if _is_usable(source_name) and source_name.lower() not in taken:
        return source_name
    name = _plain(source_name)[: NAME_LENGTH_MAX - 4].strip("_") or "field"
    if not name[0].isalpha() or name.startswith("model_"):
        name = f"n_{name}"
    if not _is_usable(name):
        name += "_"
    found, number = name, 2
    while found in taken or not _is_usable(found):
        found, number = f"{name.rstrip('_')}_{number}", number + 1
    return found


def _is_usable(name: str) -> bool:
    return (
        name.isascii()
        and bool(COLUMN_NAME.fullmatch(name.lower()))
        and name.lower() not in SYSTEM_COLUMNS | SQL_RESERVED
        and not keyword.iskeyword(name)
        and not hasattr(BaseModel, name)
        and name not in ("bytes", "dict", "list", "str")  # types of fields, too
        and name not in IMPORTED
        and not name.startswith("model_")  # pydantic's own
    )


def _plain(name: str) -> str:
    """A name's letters and digits in ASCII and lower case, words parted by underscores."""
    ascii_name = unicodedata.normalize("NFKD", name.replace("ß", "ss")).encode("ascii", "ignore").decode()
    return "_".join(words_of(ascii_name))


def dataset_name(source: str) -> str:
    """A dataset's name for a topic, a file or a table; `public.Orders-value` gives public_orders_value."""
    name = re.sub(r"[^a-z0-9]+", "_", source.lower()).strip("_")[:NAME_LENGTH_MAX].strip("_")
    if not NAME.fullmatch(name):
        name = f"d_{name}"[:NAME_LENGTH_MAX].strip("_")
    return f"{name}_" if name in SQL_RESERVED else name


def class_name(dataset: str) -> str:
    """The contract's class: Payment for payments."""
    name = "".join(word.title() for word in dataset.split("_") if word)
    singular = name[:-3] + "y" if name.endswith("ies") else name.removesuffix("s") if not name.endswith("ss") else name
    return f"{singular}Record" if singular in IMPORTED or len(singular) < 2 else singular
