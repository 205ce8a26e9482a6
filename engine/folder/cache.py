"""Where this platform keeps a user's caches."""

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Where this platform keeps a user's caches; `POCKETXL_CACHE` overrides it."""
    if override := os.environ.get("POCKETXL_CACHE"):
        return Path(override)
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "pocketxl" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "pocketxl"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "pocketxl"
