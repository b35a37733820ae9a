"""Change events: which of them are rows of a dataset, and the row of a deletion."""

from headrace.contracts.contract import Contract
from headrace.contracts.where import Where
from headrace.formats.base import ChangeDecoder
from headrace.record import Headers


class Changes:
    """Tells the events that change no row of a dataset.

    where: which rows belong to the dataset; None if all do. Like a tombstone, a deletion has a key and no other field:
    it belongs to each dataset whose key its key can be.
    """

    def __init__(self, contract: Contract, decoder: ChangeDecoder, where: Where | None) -> None:
        self._contract = contract
        self._decoder = decoder
        self._where = where

    def ignores(self, key: bytes | None, value: bytes | None, headers: Headers) -> bool:
        """Whether a record is no row of the dataset's: a heartbeat, a transaction's end, a row of another dataset."""
        if value is not None and len(value) <= self._contract.max_value_bytes:
            if self._decoder.ignored(value, headers) is not None:
                return True
            if self._where is not None:
                change = self._decoder.change(value, headers)
                value = None if change is not None and change.is_deletion else value
        return self._where is not None and self._where.ignores(key, value, headers)
