"""`headrace check`: every fault of declarations and models, found without services. Used by cli only."""

from headrace.check.checks import check as check
from headrace.check.finding import Finding as Finding
