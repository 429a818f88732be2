"""Findings and verdicts as text: for `--check`, and to be pasted into a bug report."""

import os
import platform
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from engine import version
from engine.toolchain.finding import EVERY, Finding, Status
from engine.toolchain.probe import Probe
from engine.toolchain.verdict import Verdict

MARKS: Mapping[Status, str] = {"ok": "✓", "warn": "▲", "missing": "✗", "broken": "✗"}
ASCII: Mapping[Status, str] = {"ok": "+", "warn": "!", "missing": "x", "broken": "x"}
INDENT = 4


def needed_by(finding: Finding) -> str:
    """Who needs it, in words."""
    parts = []
    for backend, targets in finding.needed_for.items():
        what = "every target" if EVERY in targets else ", ".join(targets)
        parts.append(f"{what} ({backend})")
    return "; ".join(parts) or "no target: good to know"


def row(
    finding: Finding, width: int | None, marks: Mapping[Status, str] = MARKS, *, brief: bool = False
) -> Iterator[str]:
    """A finding as lines: its state and what was found; below it why and what to do, unless all is well.

    `width` is the columns of a terminal, None where lines may have any length; `brief` leaves out what
    somebody need not know who does not miss the part.
    """
    # What nobody misses is told, not cried out.
    unmissed = finding.status == "missing" and (brief or not finding.needed_for)
    mark = "-" if unmissed else marks[finding.status]
    head = f"{mark} {finding.status:<7}  {finding.title}: {finding.found}"
    yield from _wrapped(head, width, "", 2 * INDENT)
    if finding.status == "ok":
        return
    parts = [] if brief else [("wanted", finding.wanted), ("why", finding.why)]
    parts += [("for", needed_by(finding)), ("remedy", finding.remedy.told)]
    for label, text in parts:
        if text:
            yield from _wrapped(f"{label:<7} {text}", width, " " * INDENT, INDENT + 8)
    for command in finding.remedy.commands:
        yield f"{'':{INDENT + 8}}{command}"  # to be copied whole: never wrapped


def verdict_row(
    verdict: Verdict, parts: Mapping[str, Probe], width: int | None, marks: Mapping[Status, str] = MARKS
) -> Iterator[str]:
    """A verdict as lines."""
    mark = {"works": marks["ok"], "missing": marks["missing"], "unknown": "-"}[verdict.state]
    yield from _wrapped(f"{mark} {verdict.target:<8} {verdict.sentence(parts)}", width, "", 2 * INDENT)


def text(findings: Sequence[Finding], verdicts: Sequence[Verdict], parts: Mapping[str, Probe]) -> str:
    """All of it for a bug report: versions, every finding, every verdict. The home folder is left out.

    Tokens are never in findings.
    """
    ours = version.installed() or "(from its sources)"
    lines = [
        f"mlc-wizard {ours}, Python {platform.python_version()}, {platform.platform()}",
        "",
        *(line for finding in findings for line in row(finding, None, ASCII)),
        "",
        *(line for verdict in verdicts for line in verdict_row(verdict, parts, None, ASCII)),
    ]
    home = os.path.expanduser("~")  # noqa: PTH111  who has none keeps the ~
    whole = "\n".join(lines)
    return whole.replace(home, "~") if len(home) > 1 else whole


def _wrapped(line: str, width: int | None, first: str, rest: int) -> list[str]:
    if width is None:
        return [first + line]
    return textwrap.wrap(
        line,
        max(width, 20),
        initial_indent=first,
        subsequent_indent=" " * rest,
        break_on_hyphens=False,
    )


def encodable(stream_encoding: str | None) -> Mapping[Status, str]:
    """The marks that a stream of this encoding can show."""
    try:
        "".join(MARKS.values()).encode(stream_encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return MARKS
