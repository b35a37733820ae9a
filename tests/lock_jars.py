"""Note the checksums of the jars that Maven Central serves today: `make lock-jars`, after a change of version."""

import hashlib
import tempfile
from pathlib import Path

from headrace.local import jars, registry
from tests.benchmarks.peers import debezium
from tests.debezium import connector

LISTS = {
    jars.PINS: (jars.BROKER, jars.TOOLS),
    debezium.PINS: (debezium.CONNECT, debezium.SINK),
    connector.PINS: (connector.CONNECT, connector.SOURCE),
}


def main() -> None:
    """Download all of them into a folder of this run: a cache may hold others."""
    for path, endpoints in LISTS.items():
        with tempfile.TemporaryDirectory(prefix="headrace-jars-") as name:
            found: dict[str, str] = {}
            for number, endpoint in enumerate(endpoints):
                own = Path(name, str(number))
                jars._build(endpoint, own)
                for jar in (own / "repository").rglob("*.jar"):
                    place = jar.relative_to(own / "repository").as_posix()
                    found[place] = hashlib.sha256(jar.read_bytes()).hexdigest()
        path.write_text("".join(f"{digest}  {place}\n" for place, digest in sorted(found.items())))
        print(f"{path}: {len(found)} jars")
    with tempfile.TemporaryDirectory(prefix="headrace-registry-") as name:
        archive = registry.download(Path(name))
        registry.PINS.write_text(f"{registry.sha256(archive)}  {archive.relative_to(Path(name)).as_posix()}\n")
        print(f"{registry.PINS}: Apicurio {registry.VERSION}")


if __name__ == "__main__":
    main()
