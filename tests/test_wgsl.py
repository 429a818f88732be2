"""Every shader of a package compiles in Dawn, as in Chromium, and keeps to what WebGPU devices offer."""

import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import awq_models
import pytest
from exports import weights

from engine.catalog import QUANTIZATIONS
from engine.embedded import library, lower
from engine.embedded.__main__ import main

SCRIPT = Path(__file__).parent / "browser" / "validate.mjs"


def _kernels(config: dict[str, Any]) -> dict[str, str]:
    """The WGSL of each kernel of the library that `config` describes."""
    target = lower.make_target("webgpu")
    mod = lower.lower(library.build_module(library.plan_of(config), target), target)
    text = lower.code(mod, target, system_lib=True).mod.imports[0].imports[0].inspect_source()
    return dict(re.findall(r"// Function: (\w+)\n(.*?)(?=// Function: |\Z)", text, re.DOTALL))


def _errors(kernels: dict[str, str]) -> dict[str, str]:
    node = shutil.which("node")
    assert node, "Node.js is missing"
    done = subprocess.run(
        [node, SCRIPT.name], input=json.dumps(kernels), cwd=SCRIPT.parent,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def _config(model: str, quantization: str) -> dict[str, Any]:
    folder = weights(model, quantization)
    return dict(json.loads((folder / "mlc-chat-config.json").read_text(encoding="utf-8")))


def _check_limits(name: str, wgsl: str) -> None:
    """256 threads, 32 KiB of workgroup memory, 10 storage buffers: what WebLLM asks of every device."""
    (size,) = re.findall(r"@workgroup_size\((\d+), (\d+), (\d+)\)", wgsl)
    assert math.prod(map(int, size)) <= 256, name
    arrays = re.findall(r"var<workgroup> \w+ : array<(\w+), (\d+)>", wgsl)
    assert len(arrays) == wgsl.count("var<workgroup>"), name
    assert sum({"f16": 2}.get(kind, 4) * int(count) for kind, count in arrays) <= 32 << 10, name
    assert wgsl.count("var<storage") <= 10, name


@pytest.mark.parametrize(
    ("model", "quantization"),
    [
        *(("llama", name) for name, q in QUANTIZATIONS.items() if q.runs_on("webgpu") and not q.from_awq),
        *(("gemma3_text", name) for name in ("q0f16", "q0f32", "q4f16_0", "q4f32_1", "q3f16_1")),
        # Between them all kinds of norm, bias, head layout, position and softcap.
        *((name, "q4f16_1") for name in ("gemma2", "gpt_neox", "gpt2", "phi", "qwen2", "qwen3", "olmo2")),
    ],
)
def test_every_kernel_compiles(model: str, quantization: str) -> None:
    kernels = _kernels(_config(model, quantization))
    assert len(kernels) > 30
    uses_f16 = any("enable f16;" in text for text in kernels.values())
    assert uses_f16 == QUANTIZATIONS[quantization].needs_f16
    assert _errors(kernels) == {}
    for name, wgsl in kernels.items():
        _check_limits(name, wgsl)


def test_kernels_of_awq_weights_compile(tmp_path: Path) -> None:
    awq_models.make(tmp_path / "awq")
    stage = ["gen_config", tmp_path / "awq", "--quantization", "q4f16_autoawq", "-o", tmp_path / "out"]
    assert main([*map(str, stage), "--conv-template", "auto"]) == 0
    config = json.loads((tmp_path / "out" / "mlc-chat-config.json").read_text(encoding="utf-8"))
    kernels = _kernels(config)
    assert "f16" in next(text for name, text in kernels.items() if name.startswith("gemv"))
    assert _errors(kernels) == {}
    for name, wgsl in kernels.items():
        _check_limits(name, wgsl)


def test_kernels_of_a_rolling_cache_compile() -> None:
    config = _config("mistral", "q4f16_1")
    config |= {"context_window_size": -1, "sliding_window_size": 64, "attention_sink_size": 4}
    kernels = _kernels(config)
    assert _errors(kernels) == {}
    for name, wgsl in kernels.items():
        _check_limits(name, wgsl)
    # Software devices take minutes for shaders in which a rotation is one expression.
    turning = [text for name, text in kernels.items() if re.match("attention_(prefill|decode)", name)]
    assert len(turning) == 3
    assert max(map(len, turning)) < 40_000


def test_gemma_3_270m_stays_within_the_limits() -> None:
    """Heads of 256 elements fill shared memory most."""
    config = _config("gemma3_text", "q0f16")
    text = config["model_config"]["text_config"]
    text |= {"hidden_size": 640, "intermediate_size": 2048, "num_attention_heads": 4, "head_dim": 256}
    config["model_config"]["vocab_size"] = 262144
    kernels = _kernels(config)
    assert _errors(kernels) == {}
    for name, wgsl in kernels.items():
        _check_limits(name, wgsl)


def test_a_kernel_that_is_wrong_is_told() -> None:
    kernels = _kernels(_config("llama", "q4f32_1"))
    name, text = next((n, t) for n, t in kernels.items() if "workgroupBarrier();" in t)
    broken = text.replace("workgroupBarrier();", "if (i32(threadIdx.x) == 0i) { workgroupBarrier(); }", 1)
    assert "uniform" in _errors({name: broken})[name]
