"""Opens a page in the browser where there is a screen; says where it lies in any case."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path


def main() -> None:
    """`python scripts/show.py PAGE.html`."""
    page = Path(sys.argv[1]).resolve()
    has_screen = sys.platform in ("win32", "darwin") or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    print(f"open {page}" if not has_screen or not webbrowser.open(page.as_uri()) else f"opened {page}")


if __name__ == "__main__":
    main()
