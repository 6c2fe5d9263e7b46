"""`dgss datasets list`."""

from __future__ import annotations

from dgss.cli.common import AsJson, Debug, foreseen, show_json, show_rows


def list_(as_json: AsJson = False, debug: Debug = False) -> None:
    """Name the data sets that can be read or drawn, with their licences."""
    with foreseen(debug):
        from dgss.api.datasets import list_domains

        found = list_domains()
        if as_json:
            keys = ("name", "summary", "labels", "splits", "licence", "source")
            show_json([{key: getattr(entry, key) for key in keys} for entry in found])
        else:
            show_rows([(entry.name, entry.labels, f"{entry.summary}; licence: {entry.licence}") for entry in found])
