"""Context, prefill chunk and rolling cache: defaults, what is told of, what cannot be."""

from pathlib import Path

import pytest
from gen_config_support import edited, made

from engine.embedded.compile import read_config
from engine.embedded.gen_config import generate
from engine.embedded.library import plan_of
from engine.embedded.sizes import Sizes
from engine.embedded.spec import RollingCache
from engine.errors import UsageError
from engine.plan import DEFAULT_CONTEXT, DEFAULT_PREFILL


@pytest.mark.parametrize(
    ("maximum", "asked", "expected"),
    [
        (512, Sizes(), (512, 512)),
        (131072, Sizes(), (DEFAULT_CONTEXT, DEFAULT_PREFILL)),
        (131072, Sizes(context_window_size=8192), (8192, DEFAULT_PREFILL)),
        (131072, Sizes(context_window_size=300), (300, 300)),
        (131072, Sizes(prefill_chunk_size=2048), (DEFAULT_CONTEXT, 2048)),
        (512, Sizes(context_window_size=512, prefill_chunk_size=512), (512, 512)),
    ],
)
def test_sizes(maximum: int, asked: Sizes, expected: tuple[int, int], tmp_path: Path) -> None:
    source = edited(tmp_path, "llama", max_position_embeddings=maximum)
    config = generate(source, tmp_path / "out", quantization="q0f16", sizes=asked).config
    assert (config["context_window_size"], config["prefill_chunk_size"]) == expected
    model = config["model_config"]
    assert (model["context_window_size"], model["prefill_chunk_size"]) == expected


def test_a_context_above_the_models_own_is_allowed_and_told(tmp_path: Path) -> None:
    generated = made("llama", tmp_path, sizes=Sizes(context_window_size=1024))
    assert generated.config["context_window_size"] == 1024
    assert any("above the 512 tokens" in warning for warning in generated.warnings)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (Sizes(prefill_chunk_size=0), "--prefill-chunk-size is 0"),
        (Sizes(context_window_size=0), "--context-window-size is 0"),
        (Sizes(context_window_size=-1), "--context-window-size is -1"),
        (Sizes(context_window_size=256, prefill_chunk_size=257), "257 is above --context-window-size 256"),
        (Sizes(max_batch_size=0), "--max-batch-size is 0"),
        (Sizes(tensor_parallel_shards=2), "--tensor-parallel-shards 2"),
        (Sizes(pipeline_parallel_stages=2), "--pipeline-parallel-stages 2"),
        (Sizes(disaggregation=True), "--disaggregation True"),
        (Sizes(sliding_window_size=128), "--sliding-window-size 128"),
        (Sizes(attention_sink_size=4), "--attention-sink-size 4"),
    ],
)
def test_sizes_that_cannot_be(sizes: Sizes, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        made("llama", tmp_path / "out", sizes=sizes)
    assert words in caught.value.what
    assert caught.value.remedy
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("sizes", "window", "sink", "prefill"),
    [
        (Sizes(sliding_window_size=128), 128, 4, 128),
        (Sizes(sliding_window_size=128, attention_sink_size=0, prefill_chunk_size=32), 128, 0, 32),
        (Sizes(sliding_window_size=2048, context_window_size=-1), 2048, 4, 1024),
    ],
)
def test_a_rolling_window_takes_the_place_of_the_context(
    sizes: Sizes, window: int, sink: int, prefill: int, tmp_path: Path
) -> None:
    config = made("mistral", tmp_path / "out", sizes=sizes).config
    for place in (config, config["model_config"]):
        assert (place["context_window_size"], place["sliding_window_size"]) == (-1, window)
        assert (place["attention_sink_size"], place["prefill_chunk_size"]) == (sink, prefill)
    # Which is what a library is compiled for; overrides cannot make two windows of it.
    rolls = RollingCache(window=window, sinks=sink)
    assert plan_of(read_config(tmp_path / "out", {})).spec.rolling == rolls
    with pytest.raises(UsageError, match=f"context_window_size = 256, sliding_window_size = {window}"):
        plan_of(read_config(tmp_path / "out", {"context_window_size": 256}))
    with pytest.raises(UsageError, match=f"attention_sink_size = {window} does not fit"):
        plan_of(read_config(tmp_path / "out", {"attention_sink_size": window}))


def test_a_cache_larger_than_the_model_was_made_for_is_told(tmp_path: Path) -> None:
    generated = made("mistral", tmp_path / "out", sizes=Sizes(sliding_window_size=2048))
    assert any("2048 tokens is above the 512 tokens" in warning for warning in generated.warnings)


def test_a_library_is_compiled_for_a_window_given_late(tmp_path: Path) -> None:
    made("mistral", tmp_path / "out", sizes=Sizes())
    late = {"context_window_size": -1, "sliding_window_size": 64, "attention_sink_size": 2}
    spec = plan_of(read_config(tmp_path / "out", late)).spec
    assert spec.rolling == RollingCache(window=64, sinks=2)
    assert all(layer.window is None for layer in spec.layers)
    made("llama", tmp_path / "llama", sizes=Sizes())
    with pytest.raises(UsageError, match="64: the cache of a llama model does not roll"):
        plan_of(read_config(tmp_path / "llama", late))


def test_rope_scaling_and_a_rolling_cache_exclude_each_other(tmp_path: Path) -> None:
    config = made("mistral", tmp_path / "out", sizes=Sizes(sliding_window_size=64)).config
    config["model_config"]["rope_scaling"] = {"rope_type": "linear", "factor": 2.0}
    with pytest.raises(UsageError, match="not possible with this model's rope_scaling"):
        plan_of(config)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (Sizes(sliding_window_size=128, context_window_size=256), "--context-window-size 256 and --sliding"),
        (Sizes(sliding_window_size=128, prefill_chunk_size=129), "129 is above --sliding-window-size 128"),
        (Sizes(sliding_window_size=128, attention_sink_size=128), "--attention-sink-size 128 does not fit"),
        (Sizes(sliding_window_size=128, attention_sink_size=-1), "--attention-sink-size -1 does not fit"),
        (Sizes(attention_sink_size=4), "--attention-sink-size 4 is not possible"),
        (Sizes(sliding_window_size=64, prefill_chunk_size=0), "--prefill-chunk-size is 0"),
        (Sizes(sliding_window_size=64, max_batch_size=0), "--max-batch-size is 0"),
    ],
)
def test_rolling_windows_that_cannot_be(sizes: Sizes, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        made("mistral", tmp_path / "out", sizes=sizes)
    assert words in caught.value.what
