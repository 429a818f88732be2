"""`mlc-wizard --check [--json] [--target T]`: the check without a screen.

The table, or with --json one object, goes to stdout; what is being looked at, to stderr. The object:

{"version": 1,                              changes when a key changes its meaning or goes away
 "findings": [{"id", "group", "title", "status": "ok" | "warn" | "missing" | "broken",
               "found", "wanted", "why",
               "remedy": {"told", "commands": [str], "safe": bool, "runs": [[str]], "environment"},
               "needed_for": {BACKEND: [TARGET]}}],    "*" is every target of the backend
 "verdicts": [{"target", "state": "works" | "missing", "backends": [str], "lacking": {BACKEND: [ID]}}],
 "asked": [TARGET],
 "possible": bool}                          whether libraries for all that was asked can be made
"""

import json
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence

from engine.catalog import TARGETS
from engine.console import Console, data, stopping
from engine.errors import Cancelled, UsageError
from engine.toolchain import registry, report
from engine.toolchain import verdict as judging
from engine.toolchain.check import Found, Started
from engine.toolchain.check import check as run
from engine.toolchain.finding import Finding, to_json
from engine.toolchain.probe import Probe
from engine.toolchain.verdict import Verdict

VERSION = 1
DEFAULT = ("webgpu", "cpu")
"""What every machine with this package should be able to make, by the embedded backend."""


def check(target: str | None = None, *, as_json: bool = False) -> int:
    """Check for `target`, by default for webgpu and cpu of the embedded backend: 0 if possible, else 3.

    Raises UsageError for a target that there is not.
    """
    if target is not None and target not in TARGETS:
        raise UsageError(f"--target {target!r} is not a target.", why=f"Targets are {', '.join(TARGETS)}.")
    console = Console(sys.stderr)
    probes = [p for p in registry.PROBES if target is None or judging.concerns(p, target)]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    marks = report.encodable(sys.stdout.encoding)
    findings: list[Finding] = []
    for finding in _in_order(probes, console):
        findings.append(finding)
        if not as_json:
            console.clear()
            brief = target is None and finding.status == "missing" and not _is_missed(finding)
            for line in report.row(finding, width, marks, brief=brief):
                data(line)
    console.clear()
    asked = DEFAULT if target is None else (target,)
    verdicts = [v for v in judging.verdicts(findings) if target in (None, v.target)]
    can = judging.possible(findings, asked, backend="embedded" if target is None else None)
    if as_json:
        data(json.dumps(_document(findings, verdicts, asked, possible=can), ensure_ascii=False))
    else:
        data("")
        for verdict in verdicts:
            for line in report.verdict_row(verdict, registry.BY_ID, width, marks):
                data(line)
    _conclude(console, asked, can=can)
    return 0 if can else 3


def _in_order(probes: Sequence[Probe], console: Console) -> Iterator[Finding]:
    """The findings in the order of `probes`, each as soon as those before it are there."""
    cancel = threading.Event()
    titles = {probe.id: probe.title for probe in probes}
    order = [probe.id for probe in probes]
    found: dict[str, Finding] = {}
    at_work: dict[str, None] = {}
    told = 0
    with stopping(cancel, console):
        for event in run(probes, cancel):
            match event:
                case Started(id=name):
                    at_work[name] = None
                case Found(finding):
                    at_work.pop(finding.id, None)
                    found[finding.id] = finding
            while told < len(order) and order[told] in found:
                yield found[order[told]]
                told += 1
            if at_work:
                what = ", ".join(titles[name] for name in at_work)
                console.status(f"{len(found)} of {len(order)} checked, now {what}")
    if cancel.is_set():
        raise Cancelled("The check was stopped.")


def _is_missed(finding: Finding) -> bool:
    return any(finding.blocks("embedded", target) for target in DEFAULT)


def _document(
    findings: Sequence[Finding], verdicts: Sequence[Verdict], asked: Sequence[str], *, possible: bool
) -> Mapping[str, object]:
    return {
        "version": VERSION,
        "findings": [to_json(finding) for finding in findings],
        "verdicts": [judging.to_json(verdict) for verdict in verdicts],
        "asked": list(asked),
        "possible": possible,
    }


def _conclude(console: Console, asked: Sequence[str], *, can: bool) -> None:
    names = " and ".join(asked)
    if can:
        console.line(f"Libraries for {names} can be made here.", "green")
    else:
        console.line(f"Libraries for {names} cannot be made here as it is.", "red")
        console.line("mlc-wizard --toolchain shows the same on a screen, and can run some remedies.")
