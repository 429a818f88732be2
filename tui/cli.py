"""Argument parsing; chooses headless or the app."""

import argparse
import dataclasses
import io
import os
import sys
from pathlib import Path

from engine import paths, version
from engine.console import data
from engine.errors import UsageError, WizardError

EXAMPLES = """examples:
  mlc-wizard                                             the wizard, in a terminal
  mlc-wizard --preset demo.toml                          export the built-in demo model
  mlc-wizard --preset demo.toml --dry-run                show the commands, run nothing
  mlc-wizard --preset my.toml --set quantization.mode=q0f16 --output dist/my
  mlc-wizard verify dist/my                              check an export again
  mlc-wizard --check                                     what this machine has for each target
  mlc-wizard explain build.log                           name the known failure in a log
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="mlc-wizard",
        description="Hugging Face language model in, proven MLC LLM / WebLLM package out.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="store_true", help="print the version")
    top.add_argument("--list-presets", action="store_true", help="print every preset's name and purpose")
    top.add_argument("--check", action="store_true", help="check what this machine has for each target")
    top.add_argument("--target", metavar="TARGET", help="with --check: what one target needs")
    top.add_argument(
        "--toolchain", action="store_true", help="the same on a screen, which also runs remedies"
    )
    top.add_argument("--preset", metavar="NAME", help="run a preset: a file, or a name of --list-presets")
    top.add_argument(
        "--set",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        help="change a value of the preset, for example context.context_window_size=2048; repeatable",
    )
    top.add_argument("--output", metavar="DIR", help="export into DIR")
    top.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    top.add_argument("--json", action="store_true", help="print events as JSON, one a line")
    top.add_argument("--fresh", action="store_true", help="run every stage, finished or not")
    top.add_argument("--no-compile", action="store_true", help="weights and configuration only")
    top.add_argument("--yes", action="store_true", help="ask nothing; a preset's run never does")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    verify = commands.add_parser("verify", help="check an export again", description="Check an export again.")
    verify.add_argument("directory", metavar="DIR", type=Path, help="the folder of the export")
    verify.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print checks as JSON, one a line"
    )
    explain = commands.add_parser(
        "explain",
        help="name the known failure in a log",
        description="Name the known failures in a log, the most likely cause first: exit code 0 if there "
        "is one, 1 if there is none.",
    )
    explain.add_argument(
        "log", metavar="LOG", help="a file, the folder of an export, or - for standard input"
    )
    explain.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print findings as JSON, one a line"
    )
    return top


def main(argv: list[str] | None = None) -> int:
    """The command `mlc-wizard`; returns its exit code."""
    _prepare_streams()
    arguments = parser().parse_args(argv)
    try:
        return _run(arguments)
    except (BrokenPipeError, KeyboardInterrupt):  # whoever read our output is gone
        return 130
    finally:
        _flush_or_drop()


def _run(arguments: argparse.Namespace) -> int:
    try:
        if arguments.version:
            data(f"mlc-wizard {version.installed() or '(not installed, run from its sources)'}")
            return 0
        return _command(arguments)
    except BrokenPipeError:
        raise
    except (WizardError, OSError) as error:
        from engine import headless

        return headless.tell(paths.told(error) if isinstance(error, OSError) else error)


def _command(arguments: argparse.Namespace) -> int:
    from engine import headless

    if arguments.command == "verify":
        return headless.verify(paths.expanded(arguments.directory), as_json=arguments.json)
    if arguments.command == "explain":
        from engine.explain.command import explain

        return explain(arguments.log, as_json=arguments.json)
    if arguments.target is not None and not arguments.check:
        raise UsageError("--target needs --check.", remedy="For a run: --set target.device=TARGET.")
    if arguments.check:
        from engine.toolchain.command import check

        return check(arguments.target, as_json=arguments.json)
    if arguments.list_presets:
        return headless.list_presets(as_json=arguments.json)
    if arguments.preset is None:
        return _without_preset(arguments)
    from engine import preset

    plan = preset.load(arguments.preset, arguments.set)
    if arguments.output == "":  # of a variable that was never set: not the current folder
        raise UsageError("--output names no folder.", remedy="For example: --output dist/my")
    if arguments.output is not None:
        # Shells leave the ~ of --output=~/dist to the program.
        plan = dataclasses.replace(plan, output=paths.expanded(arguments.output))
    if arguments.no_compile:
        plan = dataclasses.replace(plan, compile=False)
    if arguments.dry_run:
        return headless.dry_run(plan, as_json=arguments.json)
    return headless.run(plan, fresh=arguments.fresh, as_json=arguments.json)


def _without_preset(arguments: argparse.Namespace) -> int:
    if arguments.toolchain and arguments.json:
        raise UsageError("--toolchain opens a screen.", remedy="Run: mlc-wizard --check --json")
    given = [
        f"--{name.replace('_', '-')}"
        for name in ("set", "output", "dry_run", "json", "fresh", "no_compile", "yes")
        if getattr(arguments, name)
    ]
    if given:
        raise UsageError(
            f"{given[0]} needs --preset NAME.", remedy="See the presets with: mlc-wizard --list-presets"
        )
    # Textual draws on stderr: sent to a file, nobody would see anything.
    streams = (sys.stdin, sys.stdout, sys.stderr)
    if all(stream.isatty() for stream in streams) and os.environ.get("TERM") != "dumb":
        from tui.app import WizardApp

        Path.cwd()  # every screen takes paths from here: one that is gone is told before any
        for fixed in ("COLUMNS", "LINES"):  # exported, they would stand for the size whatever the window does
            os.environ.pop(fixed, None)
        app = WizardApp(toolchain=arguments.toolchain)
        app.run()
        return app.return_code or 0
    instead = "run a preset: mlc-wizard --preset NAME (see --list-presets)"
    if arguments.toolchain:
        instead = "the same without a screen: mlc-wizard --check"
    sys.stderr.write(f"mlc-wizard: no terminal here; {instead}\n")
    return 2


def _prepare_streams() -> None:
    """No character can fail to be printed; where stdout is read by a program, it is UTF-8.

    Paths that are not UTF-8 leave as the very bytes they are. A stream that was closed is replaced, in
    this order: else the next file to be opened would take its number, and be written to as if it were it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  open as long as the program runs
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")


def _flush_or_drop() -> None:
    """What cannot be written is dropped: Python would complain of it once more at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
