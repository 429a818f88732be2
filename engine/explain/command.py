"""`mlc-wizard explain LOG`: the known failures of a log, the most likely cause first."""

import json
import sys

from engine.console import Console, data
from engine.explain import log_file
from engine.explain.match import Finding, Matcher

WIDTH = 300
"""Characters of a line that are shown."""


def explain(source: str, *, as_json: bool = False) -> int:
    """Name the known failures in the log `source` ("-": standard input): 0 if there is one, else 1.

    Raises UsageError where the log cannot be read.
    """
    console = Console(sys.stderr)
    matcher, last = Matcher(), ""
    for lines in log_file.read(source):
        matcher.feed(lines)
        last = next((line for line in reversed(lines) if line.strip()), last)
    findings = matcher.findings()
    name = "stdin" if source == "-" else str(log_file.path_of(source))
    for finding in findings:
        for line in [_json(finding)] if as_json else _told(finding, name):
            data(line)
    lines_read = f"{matcher.lines} line{'' if matcher.lines == 1 else 's'}"
    if not findings:
        console.line(f"No known failure in {lines_read}.")
        if last:
            console.line(f"The last one: {_clip(last.strip())}")
        return 1
    if len(findings) == 1:
        console.line(f"1 known failure in {lines_read}.")
    else:
        console.line(f"{len(findings)} known failures in {lines_read}, the most likely cause first.")
    return 0


def _told(finding: Finding, name: str) -> list[str]:
    known = finding.known
    times = f" ({finding.count} times, this is the last)" if finding.count > 1 else ""
    title = f"Perhaps: {known.title}" if known.symptom else known.title
    return [
        f"{name}:{finding.number}: {_clip(finding.line)}{times}",
        *(f"  {part}" for part in (title, known.cause, known.remedy)),
        "",
    ]


def _json(finding: Finding) -> str:
    known = finding.known
    return json.dumps(
        {
            "code": known.code,
            "line": finding.number,
            "text": finding.line,
            "count": finding.count,
            "symptom": known.symptom,
            "what": known.title,
            "why": known.cause,
            "remedy": known.remedy,
            "stages": known.stages,
            "targets": known.targets,
            "backends": known.backends,
        },
        ensure_ascii=False,
    )


def _clip(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[:WIDTH]}..."
