"""Which schema of a subject a fingerprint stands for: Avro's single objects name their schema so, and no registry does.

The fingerprint is the CRC-64-AVRO of the schema's Parsing Canonical Form.
https://avro.apache.org/docs/1.12.0/specification/#single-object-encoding
"""

import time

from headrace.formats.avro_schema import fingerprint
from headrace.formats.base import Fault, Undecodable
from headrace.formats.registry import Schemas

READ_AGAIN_S = 5.0  # versions are listed again after this for a fingerprint that none of them has


class Fingerprints:
    """The fingerprints of all versions of a subject."""

    def __init__(self, schemas: Schemas, subject: str) -> None:
        self._schemas = schemas
        self._subject = subject
        self._ids: dict[bytes, int] = {}
        self._read_again_at = 0.0

    def known(self, found: bytes) -> int | None:
        """The id of a fingerprint that was found before."""
        return self._ids.get(found)

    def schema_id(self, found: bytes) -> int:
        """The id of a fingerprint in little-endian bytes; raises Undecodable where no version of the subject has it."""
        if found not in self._ids and time.monotonic() >= self._read_again_at:
            for number, schema in self._schemas.versions(self._subject):
                if (known := fingerprint(schema)) is not None:
                    self._ids.setdefault(known, number)
            self._read_again_at = time.monotonic() + READ_AGAIN_S
        if found not in self._ids:
            raise Undecodable(
                Fault.UNKNOWN_SCHEMA, f"no version of subject {self._subject} has fingerprint {found[::-1].hex()}"
            )
        return self._ids[found]
