"""Fixtures of the rounds with a real connector."""

from tests.faults.conftest import print_line as print_line
