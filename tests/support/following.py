"""`follow` in a thread of a test, and waiting for what it does."""

import threading
import time
from collections.abc import Callable
from typing import Any

from headrace.deployment import Deployment
from headrace.follow.follower import FollowOptions, FollowResult, follow


class Following:
    """`follow` in a thread, what it said, and what it came to."""

    def __init__(self, deployment: Deployment, names: tuple[str, ...] = ("jobs",)) -> None:
        self.stop = threading.Event()
        self.lines: list[str] = []
        self.result: FollowResult | None = None
        self._deployment, self._names = deployment, names
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        self.result = follow(
            self._deployment, self._names, stop=self.stop, options=FollowOptions(print_line=self.lines.append)
        )

    def __enter__(self) -> "Following":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def said(self, part: str) -> int:
        return sum(part in line for line in self.lines)


def until(what: Callable[[], Any], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.05)
