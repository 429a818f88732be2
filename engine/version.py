"""The version of this program."""

from importlib import metadata


def installed() -> str:
    """The version that pip installed; empty where it runs from its sources, never installed."""
    try:
        return metadata.version("mlc-wizard")
    except metadata.PackageNotFoundError:
        return ""
