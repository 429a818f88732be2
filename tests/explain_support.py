"""What tests of engine.explain share: what is found in lines, and `mlc-wizard explain`."""

from collections.abc import Iterable

from engine.explain import Finding, Matcher
from tui import cli


def found(lines: Iterable[str]) -> list[Finding]:
    matcher = Matcher()
    matcher.feed(list(lines))
    return matcher.findings()


def explain(*arguments: str) -> int:
    return cli.main(["explain", *arguments])
