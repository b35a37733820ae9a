"""All checks: the declarations, then the dbt project beside them."""

from headrace.catalog import load_declarations
from headrace.check.declarations import declaration_findings
from headrace.check.finding import Finding
from headrace.check.models import model_findings
from headrace.settings import Settings


def check(settings: Settings) -> list[Finding]:
    """Every fault of the declarations and of the dbt project, sorted by file and line; connects to nothing."""
    declarations = load_declarations(settings.datasets_dir)
    findings = [*declaration_findings(settings, declarations), *model_findings(settings, declarations)]
    return sorted(set(findings), key=lambda finding: (finding.file, finding.line or 0, finding.found))
