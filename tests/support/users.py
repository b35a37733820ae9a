"""Users as lines of a file, and loads of them."""

import json
from pathlib import Path

from headrace.ingest.load import LoadOptions, LoadResult, load_file
from tests.support.stage import Stage

CURRENT = (
    "select userid, location from (select distinct on (userid) userid, location, _deleted from staging.users "
    "order by userid, _generation desc, _offset desc) as newest where not _deleted order by userid"
)


def user(number: int, location: str = "L") -> str:
    return json.dumps({"LOCATION": location, "USERID": number})


def load(stage: Stage, path: Path, *lines: str, replace: bool = False, max_removed: float = 100) -> LoadResult:
    path.write_text("".join(f"{line}\n" for line in lines))
    return load_file(
        stage.deployment, "users", path=path, options=LoadOptions(replace=replace, max_removed=max_removed)
    )
