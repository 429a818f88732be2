"""The flags of the official compiler: what is taken, what is told of, what is refused."""

import pytest

from engine.embedded import flags
from engine.errors import UsageError


@pytest.mark.parametrize("opt", ["O0", "O1", "O2", "O3", "flashinfer=0;cublas_gemm=0", "cudagraph=0;"])
def test_levels_and_switches_that_ask_for_nothing(opt: str) -> None:
    assert flags.unused_opt(opt) == ()


def test_switches_without_a_meaning_here_are_told_of() -> None:
    asked = "flashinfer=0;cublas_gemm=1;faster_transformer=0;cudagraph=1;ipc_allreduce_strategy=AUTO"
    assert flags.unused_opt(asked) == ("cublas_gemm=1", "cudagraph=1", "ipc_allreduce_strategy=AUTO")


@pytest.mark.parametrize("opt", ["", "O4", "fast", "flashinfer=2", "flash=1", "ipc_allreduce_strategy=1"])
def test_no_optimization(opt: str) -> None:
    with pytest.raises(UsageError, match="--opt"):
        flags.unused_opt(opt)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("", {}),
        ("context_window_size=4096", {"context_window_size": 4096}),
        (" max_batch_size = 2 ; attention_sink_size=-1;", {"max_batch_size": 2, "attention_sink_size": -1}),
        ("tensor_parallel_shards=1;max_batch_size=4;disaggregation=False", {"max_batch_size": 4}),
    ],
)  # fmt: skip
def test_overrides(text: str, sizes: dict[str, int]) -> None:
    assert flags.parse_overrides(text) == sizes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("context_window_size", "is not KEY=VALUE"),
        ("context=4096", "is not KEY=NUMBER"),
        ("context_window_size=4k", "is not KEY=NUMBER"),
        ("context_window_size=--4", "is not KEY=NUMBER"),
        ("tensor_parallel_shards=2", "one device"),
        ("pipeline_parallel_stages=2", "one device"),
        ("disaggregation=true", "one device"),
    ],
)
def test_overrides_that_cannot_be(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        flags.parse_overrides(text)


def prefix(asked: str, *, static: bool = True) -> str:
    return flags.system_lib_prefix(asked, static=static, model_type="qwen-2.x", quantization="q4f16_1")


def test_the_prefix_is_by_default_that_of_the_official_compiler() -> None:
    assert prefix("auto") == "qwen_2_x_q4f16_1_"
    assert prefix("my_model_") == "my_model_"
    assert prefix("") == ""
    assert prefix("my_model_", static=False) == ""
    assert prefix("auto", static=False) == ""


@pytest.mark.parametrize(
    ("asked", "better"), [("my_model", "my_model_"), ("my-model_", "my_model_"), ("né_", "n_")]
)
def test_prefixes_that_no_app_would_find(asked: str, better: str) -> None:
    with pytest.raises(UsageError, match="cannot be the prefix") as caught:
        prefix(asked)
    assert better in caught.value.remedy
