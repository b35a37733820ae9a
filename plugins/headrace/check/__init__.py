"""`headrace check`: faults of declarations and models without services, wrong grains on a copy. Used by cli only."""

from headrace.check.checks import check as check
from headrace.check.finding import Finding as Finding
