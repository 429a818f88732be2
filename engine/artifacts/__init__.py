"""An export, checked: what runtimes rely on and do not check themselves, and that it runs where it can.

`python -m engine.artifacts DIR` does it as a program.
"""

from pathlib import Path

from engine import narrate, paths
from engine.artifacts import chat, folder, generation, library, native_contract, weights
from engine.artifacts.report import Report
from engine.catalog import host_library_suffix
from engine.errors import UsageError
from engine.events import GENERATION, Check
from engine.layout import CONFIG_NAME, MANIFEST_NAME


def verify(output: Path, library_name: str | None = None, made_by: str | None = None) -> list[Check]:
    """Every check of the export in `output`, in a fixed order.

    `library_name` is the model library that must be there; None takes what is there. A check that
    could say nothing, as what it needs is broken and told by another, is left out. `made_by` is the
    backend that made the export, None where the receipt says so: what mlc_llm makes may be of a model, or
    for a TVM, that is not known here; it is then told what is not checked.

    Raises UsageError where `output` is no folder, or holds no export at all.
    """
    if not paths.is_folder(output):
        raise UsageError(
            f"There is no folder {output}.", remedy="Name the folder that an export was written to."
        )
    if not any((output / name).exists() for name in (CONFIG_NAME, MANIFEST_NAME)):
        raise UsageError(
            f"{output} holds no export: neither {CONFIG_NAME} nor {MANIFEST_NAME}.",
            remedy="Name the folder that an export was written to.",
        )
    report = Report()
    config = chat.verify(output, report)
    foreign = (made_by or folder.made_by(output)) == "mlc_llm"
    manifest = weights.verify(output, config, report, foreign=foreign)
    compiled = folder.compiled(output)
    library.verify(output, library_name, config or {}, report, foreign=foreign, compiled=compiled)
    folder.verify(output, manifest, library_name, report)
    runnable = output / f"model-cpu{host_library_suffix()}"
    fine = runnable.is_file() and all(check.passed for check in report.checks)
    if config and fine:
        if why := generation.why_not(output, runnable, config, foreign=foreign, compiled=compiled):
            narrate.say(f"{GENERATION}: not run here: {why}")
        elif foreign or native_contract.verify(runnable, "cpu", config, report):
            generation.verify(output, runnable, config, report, foreign=foreign)
    return report.checks
