"""One stage of mlc_llm, watched.

`python -P -m engine.backends.official.stage STAGE [OPTION ...] -- PYTHON -m mlc_llm SUBCOMMAND ...`

Runs the command after `--`, passes its lines on and its bars as progress, and judges the stage by what
it has written: mlc_llm writes all shards before it finds a tensor missing, and some builds of TVM crash
when they are unloaded, after the work is done. Then corrects what is known to be wrong.

0 where the stage is good; the exit code of the command where it failed, without an error record, so that
its own lines say why; 1 with a record where it ended well and left nothing of use.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from engine import narrate
from engine.backends.official import outcome, repair, view
from engine.backends.official.bars import Bar, Splitter
from engine.backends.official.inspection import environment_for
from engine.backends.official.interpreter import Candidate
from engine.errors import StageError, UsageError, WizardError
from engine.layout import CONFIG_NAME

DONE = {
    "convert_weight": "Saved to directory: ",
    "gen_config": "Dumping configuration file to: ",
    "compile": "Generated: ",
}
"""The last words of each stage that went well, behind the place in the code that says them."""
_UNITS = {"convert_weight": "parameters", "gen_config": "files", "compile": "steps"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage; its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    split = given.index("--") if "--" in given else len(given)
    parsed = _parser().parse_args(given[:split])
    command = given[split + 1 :]
    try:
        if parsed.view is not None:
            view.show(parsed.source, parsed.view)
        code, finished = _watch(parsed.stage, command, parsed.checkout)
        if parsed.view is not None:
            view.remove(parsed.view)
        if code != 0 and not (finished and outcome.crashed(code)):
            return code
        outcome.judge(parsed.stage, parsed.into, parsed.library)
        if code != 0:
            narrate.say(f"note: it crashed with code {code} when all was written, which changes nothing")
        _repair(parsed)
    except WizardError as error:
        narrate.failed(error)
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m engine.backends.official.stage")
    parser.add_argument("stage", choices=tuple(DONE))
    parser.add_argument("--into", type=Path, required=True, help="the folder that the command writes into")
    parser.add_argument("--source", type=Path, help="the model's folder")
    parser.add_argument("--view", type=Path, help="the folder that is made to stand for it")
    parser.add_argument("--library", help="the name of the model library")
    parser.add_argument("--conversation", help="the conversation template to put in: auto, none or a name")
    parser.add_argument("--rolling", action="store_true", help="a rolling cache was asked for")
    parser.add_argument("--checkout", type=Path, help="the folder python/ of a source checkout of mlc_llm")
    return parser


def _watch(stage: str, command: Sequence[str], checkout: Path | None) -> tuple[int, bool]:
    """Run `command` to its end: its exit code (128 + n for signal n), and whether it said that it is done."""
    candidate = Candidate(python=Path(command[0]), origin="named", checkout=checkout)
    environment = os.environ | environment_for(candidate)
    environment.pop(narrate.RECORDS_VARIABLE, None)
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    except OSError as error:
        raise UsageError(
            f"{command[0]} cannot be started: {error.strerror or error}.",
            remedy="Name the interpreter that has mlc_llm: engine.interpreter",
        ) from None
    assert child.stdout is not None
    finished = False
    splitter = Splitter()
    with child:
        while data := os.read(child.stdout.fileno(), 1 << 16):
            finished = _pass_on(stage, splitter.feed(data)) or finished
        finished = _pass_on(stage, splitter.feed(b"", final=True)) or finished
    code = child.returncode
    return (128 - code if code < 0 else code), finished


def _pass_on(stage: str, items: Iterable[str | Bar]) -> bool:
    finished = False
    for item in items:
        if isinstance(item, Bar):
            narrate.progress(item.done, item.total, _UNITS[stage])
        else:
            narrate.say(item)
            finished = finished or DONE[stage] in item
    return finished


def _repair(parsed: argparse.Namespace) -> None:
    done: list[str] = []
    told: dict[str, str] = {}
    if parsed.stage == "convert_weight":
        done = repair.manifests(parsed.into)
    elif parsed.stage == "gen_config":
        done, told = _configuration(parsed)
    for change in done:
        narrate.say(f"repaired: {change}")
    narrate.result(told | ({"repairs": "\n".join(done)} if done else {}))


def _configuration(parsed: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    from engine.embedded.chat.choose import choose_conversation
    from engine.embedded.chat.folder import ModelFolder
    from engine.embedded.gen_config import told_of

    choice, told, model = None, {}, ModelFolder(parsed.source)
    if parsed.conversation is not None:
        choice = choose_conversation(model, parsed.conversation)
        told = told_of(choice.conversation.name, choice)
    try:
        done = repair.tokenizer(parsed.into, model)
        return done + repair.configuration(parsed.into, rolling=parsed.rolling, choice=choice), told
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StageError(
            f"{CONFIG_NAME}, as mlc_llm wrote it, cannot be used: {error!r}.",
            remedy="Another version of mlc_llm may write a better one; the embedded backend needs none.",
        ) from None


if __name__ == "__main__":
    sys.exit(main())
