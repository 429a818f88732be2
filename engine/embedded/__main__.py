"""`python -m engine.embedded {convert_weight,gen_config,compile}`, with the flags of the official CLI."""

import argparse
import importlib
import sys

from engine import narrate
from engine.errors import WizardError

STAGES = {
    "convert_weight": "Convert and quantize the weights of a Hugging Face model.",
    "gen_config": "Write mlc-chat-config.json and copy the tokenizer.",
    "compile": "Compile the model library for a device.",
}


def main(argv: list[str] | None = None) -> int:
    """Run one stage; each is a module here with `add_arguments(parser)` and `run(arguments)`.

    The stage's module is imported only when chosen: compile alone needs the compiler.
    """
    parser = argparse.ArgumentParser(prog="python -m engine.embedded", description=__doc__)
    commands = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    wanted = argv if argv is not None else sys.argv[1:]
    chosen = next((word for word in wanted if word in STAGES), None)
    for name, sentence in STAGES.items():
        command = commands.add_parser(name, help=sentence, description=sentence)
        if name == chosen:
            module = importlib.import_module(f"engine.embedded.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    arguments = parser.parse_args(wanted)
    try:
        arguments.run(arguments)
    except WizardError as error:
        narrate.failed(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
