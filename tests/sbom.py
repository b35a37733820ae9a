"""What an installation is made of, as a CycloneDX document: `make sbom`.

Packages are those that requirements.txt locks; to these come Kafka's jars and the registry's
archive, as they are pinned.
"""

import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from pip_requirements_parser import RequirementsFile  # type: ignore[import-untyped]

from headrace.local import registry
from headrace.local.jars import pinned

ROOT = Path(__file__).resolve().parents[1]


def document() -> dict[str, Any]:
    """The document; the same for the same lock: without the library's random serial number and the time."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    root = Component(
        bom_ref=project["name"],
        name=project["name"],
        type=ComponentType.APPLICATION,
        description=project["description"],
        licenses=[DisjunctiveLicense(id=project["license"])],
    )
    bom = Bom(components=[*_packages(), *_jars()])
    bom.metadata.component = root
    bom.register_dependency(root, bom.components)  # the lock does not say which of them need each other
    found: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    del found["serialNumber"], found["metadata"]["timestamp"]
    return found


def _packages() -> Iterator[Component]:
    for found in RequirementsFile.from_file(str(ROOT / "requirements.txt")).requirements:
        digests = [
            HashType(alg=HashAlgorithm.SHA_256, content=option.removeprefix("sha256:")) for option in found.hash_options
        ]
        purl = PackageURL("pypi", name=found.name, version=found.get_pinned_version)
        # by its package URL, not by an index's: which one it is installed from is the user's choice
        distribution = ExternalReference(
            type=ExternalReferenceType.DISTRIBUTION, url=XsUri(purl.to_string()), hashes=digests
        )
        yield Component(
            bom_ref=purl.to_string(),
            name=found.name,
            version=found.get_pinned_version,
            purl=purl,
            external_references=[distribution],
        )


def _jars() -> Iterator[Component]:
    for path, digest in (pinned() | pinned(registry.PINS)).items():
        *group, name, version, _ = PurePosixPath(path).parts
        purl = PackageURL("maven", ".".join(group), name, version)
        yield Component(
            bom_ref=purl.to_string(),
            group=".".join(group),
            name=name,
            version=version,
            purl=purl,
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        )


if __name__ == "__main__":
    json.dump(document(), sys.stdout, indent=2)
    print()
