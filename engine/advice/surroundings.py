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
    fetched, needed = sizes.fetch_bytes, sizes.disk_needed_bytes
    if machine.cache_free is None:
        needed += fetched
    elif fetched > machine.cache_free:
        yield Advice(
            code="cache",
            severity="warning",
            message=f"The model takes {megabytes(fetched)} in the cache of the Hub client, and its disk has "
            f"{megabytes(machine.cache_free)} free. HF_HOME names another folder for it.",
        )
    if needed > machine.disk_free:
        also = " with the model to be fetched" if needed > sizes.disk_needed_bytes else ""
        yield Advice(
            code="disk",
            severity="warning",
            message=f"The export takes {megabytes(needed)}{also}, and the disk of "
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
