"""Trying something as another user of the machine."""

import encodings.idna  # noqa: F401 # for host names: the other user may not be able to import it
import os
import pickle
from collections.abc import Callable
from typing import Any

import pytest

UID = 65_534  # `anonymous`, as most systems have it

only_as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def as_other_user(attempt: Callable[[], Any]) -> Any:
    """What a function returns as another user; an exception that it raises comes back as its result.

    In a fork: another user may not be able to reach this Python.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(UID, UID, UID)
            os.setresuid(UID, UID, UID)
            try:
                result = attempt()
            except Exception as error:
                result = error
            os.write(writer, pickle.dumps(result))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        response = file.read()
    os.waitpid(pid, 0)
    return pickle.loads(response)
