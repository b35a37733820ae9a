"""The links of the page's own pages, followed as far as they stay below /headrace/."""

import re
import time
from collections.abc import Callable, Iterable
from html import unescape
from urllib.parse import urldefrag, urljoin

import httpx

BASE = "http://host/headrace/"
HREF = re.compile(r'<(?:a|link|script)\b[^>]*?\b(?:href|src)="([^"]*)"')


def crawl(
    get: Callable[[str], httpx.Response], start: Iterable[str], follow: re.Pattern[str]
) -> tuple[dict[str, str], set[str], set[str]]:
    """Fetch the pages and what they link to; returns texts by address, addresses with a fragment, and those outside.

    Pages whose address matches `follow` are searched for links in turn. Of dry runs and of the main page's other views,
    which cost a process and a read of all figures, one each is fetched.
    """
    kinds = "dry-run", "range=", "scale=", "page="
    wanted, texts, inside, outside = [urljoin(BASE, each) for each in start], dict[str, str](), set[str](), set[str]()
    while wanted:
        address = wanted.pop()
        if address in texts or any(kind in address and any(kind in each for each in texts) for kind in kinds):
            continue
        response = _get(get, address)
        texts[address] = response.text if response.status_code == 200 else f"found {response.status_code}"
        if not response.headers["content-type"].startswith("text/html") or not follow.search(address):
            continue
        for href in HREF.findall(response.text):
            link = urljoin(address, unescape(href))
            if link.startswith(BASE):
                inside.add(link)
                wanted.append(urldefrag(link)[0])
            else:
                outside.add(link)
    return texts, inside, outside


def _get(get: Callable[[str], httpx.Response], address: str) -> httpx.Response:
    """Ask again while what the page shows is being read."""
    deadline = time.monotonic() + 120
    while (response := get(address.removeprefix(BASE))).status_code == 503 and time.monotonic() < deadline:
        time.sleep(0.5)
    return response


def broken(get: Callable[[str], httpx.Response], start: Iterable[str], follow: re.Pattern[str]) -> list[str]:
    """Links that do not resolve: pages that are refused, and fragments without an element."""
    texts, inside, _ = crawl(get, start, follow)
    assert len(texts) > 10
    found = [f"{address}: {text}" for address, text in texts.items() if text.startswith("found ")]
    for link in sorted(inside):
        address, fragment = urldefrag(link)
        if fragment and address in texts and f'id="{fragment}"' not in texts[address]:
            found.append(f"{link}: no such element")
    return found
