"""Rules about the target, the chat template and this machine."""

from collections.abc import Iterator

from engine.advice.case import Advice, Case
from engine.model.facts import ModelFacts
from engine.plan import MOBILE, ExportPlan
from engine.units import megabytes


def tensor_parallel(plan: ExportPlan, _facts: ModelFacts | None) -> Iterator[Advice]:
    """Shards for several devices on a target that has one."""
    if plan.device in ("webgpu", *MOBILE) and plan.tensor_parallel_shards > 1:
        yield Advice(
            code="tensor-parallel",
            severity="warning",
            message=f"tensor_parallel_shards = {plan.tensor_parallel_shards}, but {plan.device} has one "
            "device.",
            better={"tensor_parallel_shards": 1},
        )


def chat_template(case: Case) -> Iterator[Advice]:
    """A conversation template to be derived from nothing."""
    if case.plan.conv_template == "auto" and not case.facts.has_chat_template:
        yield Advice(
            code="no-chat-template",
            severity="warning",
            message="The model has no chat template, as base models have none: there is nothing to derive "
            "the conversation from. With conv_template = none it continues text; a known name makes it chat.",
            better={"conv_template": "none"},
        )


def machine(case: Case) -> Iterator[Advice]:
    """Room on disk and in memory."""
    machine, sizes = case.machine, case.sizes
    if machine is None:
        return
    if sizes.disk_needed_bytes > machine.disk_free:
        yield Advice(
            code="disk",
            severity="warning",
            message=f"The export takes {megabytes(sizes.disk_needed_bytes)}, and the disk of "
            f"{case.plan.output} has {megabytes(machine.disk_free)} free.",
        )
    if sizes.convert_ram_bytes > machine.ram_available:
        yield Advice(
            code="ram",
            severity="warning",
            message=f"Converting takes up to {megabytes(sizes.convert_ram_bytes)} of memory, of which "
            f"{megabytes(machine.ram_available)} of {megabytes(machine.ram_total)} are free. "
            "Close other programs.",
        )
