"""What an installation is made of, as a CycloneDX document: `make sbom`.

cyclonedx-py lists what requirements.txt locks; to these come Kafka's jars and the registry's
archive, as they are pinned.
"""

import json
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any

from headrace.local import registry
from headrace.local.jars import pinned

ROOT = Path(__file__).resolve().parents[1]


def document() -> dict[str, Any]:
    """The document; the same for the same lock."""
    tool = Path(sys.executable).with_name("cyclonedx-py")
    command = [str(tool), "requirements", "--no-validate", "--output-reproducible", "--pyproject", "pyproject.toml"]
    done = subprocess.run([*command, "requirements.txt"], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    jars = pinned() | pinned(registry.PINS)
    found["components"] += [_jar(PurePosixPath(path), digest) for path, digest in jars.items()]
    return found


def _jar(path: PurePosixPath, digest: str) -> dict[str, Any]:
    *group, name, version, _ = path.parts
    purl = f"pkg:maven/{'.'.join(group)}/{name}@{version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "group": ".".join(group),
        "name": name,
        "version": version,
        "purl": purl,
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }


if __name__ == "__main__":
    json.dump(document(), sys.stdout, indent=2)
    print()
