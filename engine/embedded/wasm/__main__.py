"""`python -m engine.embedded.wasm {build,clear}`: the runtime in the cache, compiled now, or removed."""

import argparse
import sys

from engine import narrate
from engine.embedded.wasm import build, cache
from engine.errors import WizardError


def main(argv: list[str] | None = None) -> int:
    """Compile the runtime unless it is there and whole, or remove every one that is there."""
    parser = argparse.ArgumentParser(prog="python -m engine.embedded.wasm", description=__doc__)
    parser.add_argument("action", choices=("build", "clear"))
    arguments = parser.parse_args(argv)
    try:
        if arguments.action == "build":
            folder = build.runtime(lambda done, total, name: narrate.progress(done, total, "units", name))
            narrate.say(f"The runtime is in {folder}")
        else:
            freed = cache.clear(build.KIND)
            narrate.say(f"Removed {freed / 2**20:.1f} MiB from {cache.root() / build.KIND}")
    except WizardError as error:
        narrate.failed(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
