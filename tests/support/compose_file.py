"""docker-compose.yml, Dockerfile and .env.example as tests read them."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
ENV_EXAMPLE = (ROOT / ".env.example").read_text()

ONE_SHOT = {"init"}
LONG_RUNNING = sorted(SERVICES.keys() - ONE_SHOT)
AIRFLOW = sorted(name for name, service in SERVICES.items() if "build" in service)
REQUIRED = re.compile(r"\$\{([A-Z_]+):\?[^}]*}")
VARIABLE = re.compile(r"\$\{([A-Z_]+)[^}]*}")


def environment(service: str) -> dict[str, str]:
    return dict(SERVICES[service].get("environment", {}))
