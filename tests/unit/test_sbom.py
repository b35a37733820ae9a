"""`make sbom` lists what is locked, and nothing else."""

import re
from pathlib import Path

from headrace.local import registry
from headrace.local.jars import pinned
from tests.sbom import document

ROOT = Path(__file__).parents[2]


def test_sbom_lists_exactly_the_locked_packages_and_jars_with_their_hashes() -> None:
    lock = re.sub(r"\\\n", "", (ROOT / "requirements.txt").read_text())
    locked = {
        (name, version): set(re.findall(r"--hash=sha256:([0-9a-f]{64})", rest))
        for name, version, rest in re.findall(r"^([a-zA-Z0-9._-]+)(?:\[[^]]*])?==(\S+)(.*)$", lock, re.MULTILINE)
    }
    found = document()
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    assert found["metadata"]["component"]["name"] == "headrace"
    packages = [each for each in found["components"] if each["purl"].startswith("pkg:pypi/")]
    assert {
        (each["name"], each["version"]): {
            digest["content"] for reference in each["externalReferences"] for digest in reference["hashes"]
        }
        for each in packages
    } == locked
    assert len(packages) == len(locked) > 150
    jars = [each for each in found["components"] if each["purl"].startswith("pkg:maven/")]
    digests = pinned() | pinned(registry.PINS)
    assert {each["hashes"][0]["content"] for each in jars} == set(digests.values())
    assert len(jars) == len(digests)
    assert "pkg:maven/org.apache.kafka/kafka_2.13@4.3.1" in {each["purl"] for each in jars}
    assert len(packages) + len(jars) == len(found["components"])
