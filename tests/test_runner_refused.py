"""What engine.runner refuses before any work."""

import dataclasses
import os
import shutil
from pathlib import Path

import pytest
from runner_support import GEMMA, finish, plan_for

from engine.backends import auto
from engine.backends.base import library_name
from engine.errors import ToolchainError, UsageError


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"source": "/no/such/model"}, UsageError, "/no/such/model"),
        ({"device": "vulkan", "compile": True}, UsageError, "weights and configuration only"),
        ({"device": "cpu", "compile": True, "host": "sparc-sun-solaris"}, UsageError, "--host sparc"),
        ({"device": "metal", "compile": True, "host": "x86_64-linux-gnu"}, UsageError, "cannot be made for"),
        ({"device": "iphone", "compile": True, "system_lib_prefix": "gemma"}, UsageError, "gemma_"),
        ({"compile": True, "opt": "warp=1"}, UsageError, "warp=1 is no optimization"),
        ({"compile": True, "overrides": "a=1"}, UsageError, "a=1"),
        ({"device": "toaster", "compile": True}, UsageError, "is not a device"),
        ({"quantization": "q9"}, UsageError, "q4f16_1"),
        ({"prefill_chunk_size": 0}, UsageError, "prefill_chunk_size"),
        ({"prefill_chunk_size": 512}, UsageError, "prefill_chunk_size"),
        ({"source": "someone/model", "prefill_chunk_size": 512}, UsageError, "prefill_chunk_size"),
    ],
)
def test_refused_before_any_work(
    tmp_path: Path, changes: dict[str, object], error: type[Exception], said: str
) -> None:
    plan = plan_for(tmp_path, **changes)
    with pytest.raises(error) as caught:
        finish(plan)
    assert said in str(caught.value)
    assert not plan.output.exists()


def test_a_target_of_later_is_fine_without_compiling(tmp_path: Path) -> None:
    backend, reason = auto.choose(plan_for(tmp_path, device="cuda"), None)
    assert backend.name == "embedded"
    assert "q4f16_1" in reason
    assert "embedded" in auto.choose(plan_for(tmp_path, backend="embedded"), None)[1]


def test_a_machine_without_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    plan = plan_for(tmp_path, compile=True)
    with pytest.raises(ToolchainError, match="apache-tvm") as caught:
        auto.choose(plan, None)
    assert caught.value.fix == "compile"
    auto.choose(dataclasses.replace(plan, compile=False), None)


def test_the_output_cannot_be_the_model(tmp_path: Path) -> None:
    source = shutil.copytree(GEMMA / "hf", tmp_path / "out")
    with pytest.raises(UsageError, match="folder of the model itself"):
        finish(plan_for(tmp_path, source=str(source)))


def test_the_output_cannot_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    for output in (tmp_path / "out", tmp_path / "out" / "below"):
        with pytest.raises(UsageError) as caught:
            finish(plan_for(tmp_path, output=output))
        assert caught.value.fix == "output"


def test_what_stands_where_the_folder_would_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".mlc-wizard").write_text("a file")
    with pytest.raises(UsageError, match=r"\.mlc-wizard is a file, not a folder"):
        finish(plan_for(tmp_path))
    with pytest.raises(UsageError, match="cannot be used: ") as caught:
        finish(plan_for(tmp_path, output=tmp_path / ("a" * 300)))
    assert caught.value.fix == "output"


@pytest.mark.skipif(os.name != "posix", reason="links need a privilege")
def test_links_in_place_of_the_output(tmp_path: Path) -> None:
    for name, target in (("dangling", "nowhere"), ("loop", "loop")):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(UsageError, match=f"{name} is a link that leads to no folder"):
            finish(plan_for(tmp_path, output=tmp_path / name))
    source = shutil.copytree(GEMMA / "hf", tmp_path / "model")
    (tmp_path / "other name").symlink_to(source)
    with pytest.raises(UsageError, match="folder of the model itself"):
        finish(plan_for(tmp_path, source=str(source), output=tmp_path / "other name"))
    # A link of that name is somebody's file, wherever it leads.
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tokenizer.json").symlink_to("nowhere")
    with pytest.raises(UsageError, match=r"did not write there: tokenizer\.json"):
        finish(plan_for(tmp_path))


@pytest.mark.parametrize(
    ("device", "name"), [("webgpu", "model-webgpu.wasm"), ("iphone", "model-iphone.tar")]
)
def test_library_names(tmp_path: Path, device: str, name: str) -> None:
    assert library_name(plan_for(tmp_path, device=device)) == name
