"""All checks: the declarations, then the dbt project beside them."""

from headrace import __version__
from headrace.catalog import load_declarations
from headrace.check.declarations import declaration_findings
from headrace.check.finding import Finding
from headrace.check.models import model_findings
from headrace.command import Command
from headrace.new import package_differs
from headrace.settings import Settings


def check(settings: Settings) -> list[Finding]:
    """Every fault of the declarations and of the dbt project, sorted by file and line; connects to nothing."""
    declarations = load_declarations(settings.datasets_dir)
    findings = [*declaration_findings(settings, declarations), *model_findings(settings, declarations)]
    if package_differs(settings.dbt_dir):
        findings.append(_other_package(settings))
    return sorted(set(findings), key=lambda finding: (finding.file, finding.line or 0, finding.found))


def _other_package(settings: Settings) -> Finding:
    command = Command("new", str(settings.dbt_dir.parent), "--upgrade")
    return Finding(
        str(settings.dbt_dir / "packages" / "headrace_dbt"),
        None,
        "found the dbt package of another version of Headrace",
        f"that of {__version__}",
        f"`{command}` replaces it",
    )
