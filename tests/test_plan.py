"""Defaults of a plan, the sizes it refuses, and what its source may be."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.catalog import TARGETS
from engine.errors import UsageError
from engine.model import source
from engine.plan import BUILTIN_DEMO, ExportPlan, resolve, with_defaults


def plan(**changes: Any) -> ExportPlan:
    return ExportPlan(source=BUILTIN_DEMO, quantization="q4f32_1", **changes)


@pytest.mark.parametrize(
    ("device", "most", "changes", "expected"),
    [
        ("webgpu", None, {}, (4096, 1024)),
        ("webgpu", 131072, {}, (4096, 1024)),
        ("webgpu", 2048, {}, (2048, 1024)),
        ("webgpu", 512, {}, (512, 512)),
        ("cuda", None, {}, (4096, 1024)),
        ("android", None, {}, (2048, 128)),
        ("iphone", 64, {}, (64, 64)),
        ("webgpu", None, {"context_window_size": 700}, (700, 700)),
        ("webgpu", 512, {"context_window_size": 8192}, (8192, 1024)),
        ("webgpu", None, {"prefill_chunk_size": 32}, (4096, 32)),
        ("webgpu", None, {"sliding_window_size": 768}, (-1, 768)),
        ("webgpu", None, {"sliding_window_size": -1}, (4096, 1024)),
    ],
)
def test_defaults(device: str, most: int | None, changes: dict[str, int], expected: tuple[int, int]) -> None:
    found = resolve(plan(device=device, **changes), most)
    assert (found.context_window_size, found.prefill_chunk_size) == expected


SIZES = st.none() | st.sampled_from([-1, 0]) | st.integers(1, 200_000)


@given(
    most=st.none() | st.integers(1, 200_000),
    device=st.sampled_from(list(TARGETS)),
    context=SIZES,
    prefill=SIZES,
    rolling=SIZES,
)
def test_what_resolves_fits_and_stays(
    most: int | None, device: str, context: int | None, prefill: int | None, rolling: int | None
) -> None:
    stated = plan(
        device=device,
        context_window_size=context,
        prefill_chunk_size=prefill,
        sliding_window_size=rolling,
    )
    filled = with_defaults(stated, most)
    assert context in (None, filled.context_window_size)
    assert prefill in (None, filled.prefill_chunk_size)
    problem: UsageError | None = None
    try:
        resolved = resolve(stated, most)
    except UsageError as error:
        problem = error
    if problem:
        assert "context." in problem.what
        assert problem.remedy
        # Only what was stated can be wrong, never a default alone.
        assert not (context is None and prefill is None)
        return
    assert resolved == filled == resolve(resolved, most)
    assert resolved.prefill_chunk_size is not None
    assert resolved.context_window_size is not None
    reach = max(resolved.context_window_size, resolved.sliding_window_size or -1)
    assert 1 <= resolved.prefill_chunk_size <= reach


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"prefill_chunk_size": 0}, "prefill_chunk_size = 0 does not fit a context of 4096"),
        ({"prefill_chunk_size": 5000}, "prefill_chunk_size = 5000 does not fit a context of 4096"),
        ({"context_window_size": -1}, "context_window_size = -1 leaves the model no context"),
        ({"context_window_size": 0}, "context_window_size = 0 leaves the model no context"),
    ],
)
def test_sizes_that_cannot_work(changes: dict[str, int], expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(plan(**changes), None)
    assert expected in caught.value.what


@pytest.mark.parametrize("text", ["google/gemma-3-270m-it", "gpt2", "a/b.c_d-e", "0/1"])
def test_hub_ids(text: str) -> None:
    assert source.kind(text) == "hub"
    assert source.local_folder(text) is None


@pytest.mark.parametrize(
    "text",
    ["", "a b", "a/b/c", "-a/b", "a/b-", "a--b/c", "a/..", "a/b.git", "a" * 97, "https://x.y/a", "é/a"],
)
def test_what_is_no_source(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        source.kind(text)
    assert repr(text) in caught.value.what
    assert BUILTIN_DEMO in caught.value.why


def test_folders_and_the_demo(tmp_path: Path) -> None:
    assert source.kind(str(tmp_path)) == "folder"
    assert source.local_folder(str(tmp_path)) == tmp_path
    assert source.kind(BUILTIN_DEMO) == "builtin"
    demo = source.local_folder(BUILTIN_DEMO)
    assert demo is not None
    assert demo.parent.name == "engine"
