"""Changes of a declared contract."""

from tests.support.stage import Stage

LAST_FIELD = "    USERID: Integer\n"


def add_field(stage: Stage, definition: str) -> None:
    change_contract(stage, (LAST_FIELD, f"{LAST_FIELD}    {definition}\n"))


def change_contract(stage: Stage, *changes: tuple[str, str]) -> None:
    """Rewrite the declaration of jobs, as an engineer would who found it too strict."""
    path = stage.deployment.settings.datasets_dir / "jobs.py"
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def allow_refunds(stage: Stage) -> None:
    change_contract(stage, ("REVENUE: Annotated[Numeric, Field(ge=0)]", "REVENUE: Numeric"))
