"""Sphinx configuration: MyST pages, nothing loaded from outside."""

import sys
from pathlib import Path

from gnomon import __version__

sys.path.insert(0, str(Path(__file__).parent))

project = "Gnomon"
author = "the Gnomon authors"
copyright = "2026, the Gnomon authors"
release = __version__
extensions = ["myst_parser"]
html_theme = "furo"
html_title = f"Gnomon {__version__}"
exclude_patterns = ["_build"]
myst_heading_anchors = 3


def setup(app):  # type: ignore[no-untyped-def]
    """Draw the pictures before any page is read."""
    import patterns

    app.connect("builder-inited", lambda app: patterns.write())
