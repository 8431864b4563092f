"""Sphinx configuration: MyST pages, nothing loaded from outside."""

from gnomon import __version__

project = "Gnomon"
author = "the Gnomon authors"
copyright = "2026, the Gnomon authors"
release = __version__
extensions = ["myst_parser"]
html_theme = "furo"
html_title = f"Gnomon {__version__}"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
