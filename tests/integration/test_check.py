"""`headrace check` as a user runs it: no service is there, and all faults come at once."""

import json
import shutil
from pathlib import Path

from click.testing import CliRunner, Result

from headrace import __version__
from headrace.cli import main

ROOT = Path(__file__).parents[2]


def checkout(folder: Path) -> dict[str, str]:
    """A copy of declarations and models, and the settings that name it and no service."""
    for part in ("plugins/datasets", "dbt"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "target", "logs"))
    return {
        "HEADRACE_HOME": str(folder / "home"),
        "HEADRACE_DATASETS_DIR": str(folder / "plugins" / "datasets"),
        "HEADRACE_DBT_DIR": str(folder / "dbt"),
        "HEADRACE_POSTGRES_DSN": "postgresql://127.0.0.1:1/nothing",
        "HEADRACE_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    }


def keep_users_only(project: Path) -> None:
    """Leave the models of users alone: dbt parses them again after each fault."""
    for path in (project / "functions", project / "tests"):
        shutil.rmtree(path)
    for path in project.glob("models/*/*"):
        if path.is_dir():
            shutil.rmtree(path)
        elif "users" not in path.stem or path.stem.startswith("top_") or path.stem.startswith("_"):
            path.unlink()


def add_child(declaration: Path) -> None:
    child = 'Child(name="cars", contract=type("Car", (BaseModel,), {}), explode="$.cars")'
    text = declaration.read_text().replace("DATASET = Dataset(", f"DATASET = Dataset(\n    children=({child},),")
    declaration.write_text(text.replace("import CONTRACT_CONFIG", "import CONTRACT_CONFIG, Child"))


def check(variables: dict[str, str], *options: str) -> Result:
    return CliRunner().invoke(main, ["check", *options], env=variables)


def test_check_without_services_finds_every_fault_and_nothing_else(tmp_path: Path) -> None:
    variables = checkout(tmp_path)
    clean = check(variables)
    assert (clean.exit_code, clean.output) == (0, "no faults in declarations and models\n")

    keep_users_only(tmp_path / "dbt")
    models = tmp_path / "dbt" / "models" / "marts"
    (models / "unknown_ref.sql").write_text("select 1 as a\nfrom {{ ref('nowhere') }}\n")
    (models / "unknown_ref.yml").write_text("models:\n  - name: unknown_ref\n")
    # the other model's fault is not its own
    (models / "reads_it.sql").write_text("select * from {{ ref('unknown_ref') }}\n")
    (models / "cut_off.sql").write_text("select 1 as a\nfrom {{ ref('users') \n")
    (models / "without_yaml.sql").write_text("select 1 as a\n")
    (models / "broken.yml").write_text("models:\n  - name: without\n   columns: []\n")
    (models / "refunds.yml").write_text(
        "sources:\n  - name: staging\n    tables:\n      - name: refunds\n"
        "      - name: users__cars\n        config: {meta: {parent: users}}\n        columns: [{name: wheel}]\n"
        "      - name: users__pets\n        config: {meta: {parent: users}}\n"
        "models:\n  - name: no_such_model\n    description: nothing\n"
    )
    (tmp_path / "dbt" / "models" / "staging" / "__sources.yml").write_text(
        "sources:\n  - name: staging\n    schema: staging\n    tables:\n      - name: users\n"
        "        config: {meta: {key: user}}\n"
    )
    add_child(tmp_path / "plugins" / "datasets" / "users.py")
    jobs = tmp_path / "plugins" / "datasets" / "jobs.py"
    jobs.write_text(jobs.read_text().replace("    USERID: Integer", "    USERID: complex"))

    found = check(variables, "--json")
    assert found.exit_code == 1, found.output
    findings = sorted(json.loads(found.stdout)["findings"], key=lambda f: (Path(f["file"]).name, f["line"] or 0))
    listed = [(Path(f["file"]).name, f["line"], f["found"]) for f in findings]
    expected = [
        ("__sources.yml", 5, "key 'user' of source staging.users"),
        ("broken.yml", 3, "dbt: Parsing Error Error reading"),
        ("cut_off.sql", None, "no YAML"),
        ("cut_off.sql", 2, "dbt: Compilation Error in model cut_off"),
        ("jobs.py", 22, "Job: field 'USERID' is complex"),
        ("reads_it.sql", None, "no YAML"),
        ("refunds.yml", None, "dbt: Did not find matching node for patch with name 'no_such_model'"),
        ("refunds.yml", 4, "source staging.refunds, which no dataset fills"),
        ("refunds.yml", 5, "column 'wheel' of source staging.users__cars"),
        ("refunds.yml", 8, "source staging.users__pets of users"),
        ("unknown_ref.sql", None, "dbt: Compilation Error Model 'model.headrace.unknown_ref'"),
        ("without_yaml.sql", None, "no YAML"),
    ]
    assert len(listed) == len(expected), listed
    for (file, line, text), (wanted_file, wanted_line, beginning) in zip(listed, expected, strict=True):
        assert (file, line) == (wanted_file, wanted_line)
        assert text.startswith(beginning), listed


def test_check_of_a_new_project_finds_nothing_and_an_outdated_package(tmp_path: Path) -> None:
    project = tmp_path / "sales"
    assert CliRunner().invoke(main, ["new", str(project)]).exit_code == 0
    variables = {"HEADRACE_PROJECT": str(project)}
    clean = check(variables)
    assert (clean.exit_code, clean.output) == (0, "no faults in declarations and models\n")
    package = project / "dbt" / "packages" / "headrace_dbt"
    (package / "README.md").write_text("what it says is no code")
    (package / "dbt_project.yml").write_text("name: headrace_dbt\nversion: 0.9.0\nconfig-version: 2\n")
    outdated = check(variables)
    assert outdated.exit_code == 1
    assert outdated.output.splitlines()[0] == (
        f"{package}: found the dbt package of another version of Headrace, expected that of {__version__}; "
        f"`headrace new {project} --upgrade` replaces it"
    )
