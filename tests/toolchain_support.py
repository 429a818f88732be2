"""What tests of probes share: a PATH of their own, and a look in this process."""

import json
import os
from pathlib import Path

import pytest
from toolchain_stand_ins import bare_path

from engine.toolchain.finding import Finding, from_json, to_json
from engine.toolchain.probe import limited
from engine.toolchain.registry import BY_ID

UNSET = (
    *("TVM_NDK_CC", "ANDROID_NDK", "ANDROID_NDK_HOME", "ANDROID_NDK_ROOT", "EMSDK"),
    *("TVM_SOURCE_DIR", "TVM_HOME", "MLC_LLM_SOURCE_DIR", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
)
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and file modes")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is all of PATH; nothing of this machine's settings counts."""
    folder = tmp_path / "tools"
    monkeypatch.setenv("PATH", bare_path(folder))
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    return folder


def look(name: str, seconds: float = 60.0) -> Finding:
    """What the probe finds; it survives the way to the parent."""
    probe = BY_ID[name]
    with limited(seconds):
        finding = probe.look(probe)
    assert from_json(json.loads(json.dumps(to_json(finding)))) == finding
    assert (finding.id, finding.group, finding.title) == (probe.id, probe.group, probe.title)
    assert finding.status == "ok" or finding.remedy.told
    return finding
