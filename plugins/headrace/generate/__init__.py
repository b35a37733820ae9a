"""Repeatable sample data: the same seed gives the same bytes."""

from headrace.generate.events import generate_events
from headrace.generate.jobs import DEFECTS, generate_jobs
from headrace.generate.rides import generate_rides
from headrace.generate.telemetry import generate_telemetry

__all__ = ["DEFECTS", "generate_events", "generate_jobs", "generate_rides", "generate_telemetry"]
