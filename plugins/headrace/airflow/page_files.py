"""The page's scripts, styles and pictures, and a version of them that tells browsers when to load them again."""

import hashlib
from pathlib import Path

STATIC = Path(__file__).with_name("static")
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".LICENSE": "text/plain"}
FILES = {path.name: path.read_bytes() for path in STATIC.iterdir() if path.suffix in TYPES}
VERSION = hashlib.sha256(b"".join(FILES[name] for name in sorted(FILES))).hexdigest()[:12]
