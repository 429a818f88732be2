"""Presets: what is saved is what was chosen, and a save that fails costs nothing."""

import os
import string
import sys
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import preset
from engine.catalog import QUANTIZATIONS, TARGETS
from engine.errors import UsageError
from engine.plan import BUILTIN_DEMO, BackendName, ExportPlan

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
WORD = st.text(string.ascii_letters + string.digits + "_.-", min_size=1)
SIZES = st.none() | st.integers(1, 2**31 - 1)


@st.composite
def plans(draw: st.DrawFn) -> ExportPlan:
    context, prefill = draw(SIZES | st.just(-1)), draw(SIZES)
    if context is not None and prefill is not None and 0 < context < prefill:
        context, prefill = prefill, context
    root = Path.cwd().anchor
    folder = st.text(
        st.characters(exclude_categories=["C", "Z"], exclude_characters='<>:"/\\|?*~.'), min_size=1
    )
    return ExportPlan(
        source=draw(
            st.just(BUILTIN_DEMO) | st.just("org/name-1.5b") | folder.map(lambda f: str(Path(root, f)))
        ),
        revision=draw(WORD | st.just("")),
        lora_adapter=draw(
            st.sampled_from(["", "org/lora", "org/lora@v1"]) | folder.map(lambda f: str(Path(root, f)))
        ),
        model_type=draw(WORD),
        conv_template=draw(WORD),
        quantization=draw(st.sampled_from(list(QUANTIZATIONS))),
        context_window_size=context,
        prefill_chunk_size=prefill,
        sliding_window_size=draw(SIZES | st.just(-1)),
        attention_sink_size=draw(st.none() | st.integers(0, 64)),
        max_batch_size=draw(st.integers(1, 512)),
        tensor_parallel_shards=draw(st.integers(1, 8)),
        device=draw(st.sampled_from(list(TARGETS))),
        compile=draw(st.booleans()),
        host=draw(WORD),
        opt=draw(st.sampled_from(["O0", "O3", "flash_attention=1;faster=0"])),
        system_lib_prefix=draw(st.sampled_from(["auto", "", "gemma_"])),
        overrides=draw(st.sampled_from(["", "a=1", "a=1;b=-2"])),
        cuda_arch=draw(st.sampled_from(["auto", "sm_89", "75,compute_90a"])),
        output=Path(draw(folder), draw(folder)),
        backend=draw(st.sampled_from(get_args(BackendName))),
        interpreter=draw(st.sampled_from(["auto", str(Path("mlc/bin/python").absolute())])),
        description=draw(TEXT),
    )


@given(plans())
def test_saving_keeps_every_choice(tmp_path_factory: pytest.TempPathFactory, plan: ExportPlan) -> None:
    path = tmp_path_factory.mktemp("save") / "made" / "p.toml"
    preset.save(plan, path)
    assert preset.load(str(path)) == plan
    assert [p.name for p in path.parent.iterdir()] == ["p.toml"]


def test_a_failed_save_leaves_the_old_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.toml"
    preset.save(ExportPlan(source=BUILTIN_DEMO, quantization="q0f16"), path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="No space left"):
        preset.save(ExportPlan(source=BUILTIN_DEMO, quantization="q0f32"), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no mode bits to compare")
def test_a_saved_preset_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    preset.save(ExportPlan(source=BUILTIN_DEMO, quantization="q0f16"), tmp_path / "p.toml")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "p.toml").stat().st_mode == (tmp_path / "plain").stat().st_mode
