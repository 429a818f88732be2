"""Probes of development kits: TVM's runtime as bitcode, Xcode, Android's."""

from pathlib import Path

import pytest
from toolchain_stand_ins import stand_in
from toolchain_support import look, tools

__all__ = ["tools"]

CLANG = "Android (12027248) clang version 18.0.2\nTarget: aarch64-unknown-linux-android24\n"


@pytest.mark.usefixtures("tools")
class TestTheRuntimeAsBitcode:
    """TVM looks below TVM_HOME, mlc_llm below MLC_LLM_SOURCE_DIR."""

    def variables(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *left_out: str) -> Path:
        tvm = folder / "3rdparty" / "tvm"
        tvm.mkdir(parents=True)
        places = {"MLC_LLM_SOURCE_DIR": folder, "TVM_SOURCE_DIR": tvm, "TVM_HOME": tvm}
        for name, place in places.items():
            if name not in left_out:
                monkeypatch.setenv(name, str(place))
        files = {folder: ("mlc_wasm_runtime.bc",), tvm: ("wasm_runtime.bc", "tvmjs_support.bc")}
        for place, names in files.items():
            (place / "web" / "dist" / "wasm").mkdir(parents=True)
            for name in names:
                (place / "web" / "dist" / "wasm" / name).write_bytes(b"BC")
        return tvm

    def test_all_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tvm = self.variables(tmp_path / "mlc", monkeypatch)
        assert "missing: webgpu_runtime.bc" in look("wasm-bitcode").found
        (tvm / "web" / "dist" / "webgpu_runtime.bc").write_bytes(b"BC")
        assert look("wasm-bitcode").status == "ok"

    def test_without_tvm_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.variables(tmp_path / "mlc", monkeypatch, "TVM_HOME")
        finding = look("wasm-bitcode")
        assert finding.status == "missing"
        assert "TVM_HOME is not set" in finding.found
        assert any("prep_emcc_deps.sh" in line for line in finding.remedy.commands)

    @pytest.mark.parametrize(("value", "told"), [("nowhere", "no folder"), (".", "not absolute")])
    def test_a_bad_place(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, told: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MLC_LLM_SOURCE_DIR", value)
        finding = look("wasm-bitcode")
        assert finding.status == "broken"
        assert told in finding.found


class TestXcode:
    def test_the_whole_of_it(self, tools: Path) -> None:
        stand_in(tools, "xcode-select", "/Applications/Xcode.app/Contents/Developer\n")
        stand_in(tools, "xcodebuild", "Xcode 16.2\nBuild version 16C5032a\n")
        finding = look("xcode")
        assert finding.status == "ok"
        assert "Xcode 16.2" in finding.found

    def test_the_command_line_tools_alone(self, tools: Path) -> None:
        stand_in(tools, "xcode-select", "/Library/Developer/CommandLineTools\n")
        finding = look("xcode")
        assert finding.status == "missing"
        assert "command line tools alone" in finding.found
        assert "xcode-select --switch" in finding.remedy.commands[0]
        assert not finding.remedy.safe

    def test_a_metal_toolchain_that_was_not_fetched(self, tools: Path) -> None:
        text = "error: cannot execute tool 'metal' due to missing Metal Toolchain; use: xcodebuild -download"
        stand_in(tools, "xcrun", text, code=1)
        finding = look("metal")
        assert finding.status == "missing"
        assert finding.remedy.commands == ("xcodebuild -downloadComponent MetalToolchain",)

    def test_a_metal_that_is_in_no_folder(self, tools: Path) -> None:
        text = 'xcrun: error: unable to find utility "metal", not a developer tool or in PATH\n'
        stand_in(tools, "xcrun", text, code=72)
        assert look("metal").status == "missing"


class TestAndroid:
    def test_a_compiler_for_phones(self, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TVM_NDK_CC", str(stand_in(tools, "aarch64-linux-android24-clang", CLANG)))
        assert look("android-ndk").status == "ok"

    def test_a_compiler_for_something_else(self, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        says = CLANG.replace("aarch64-unknown-linux-android24", "x86_64-pc-linux-gnu")
        monkeypatch.setenv("TVM_NDK_CC", str(stand_in(tools, "clang", says)))
        finding = look("android-ndk")
        assert finding.status == "broken"
        assert "x86_64-pc-linux-gnu" in finding.found

    def test_a_compiler_that_is_not_there(self, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TVM_NDK_CC", str(tools / "gone"))
        assert look("android-ndk").status == "broken"

    @pytest.mark.usefixtures("tools")
    def test_a_kit_that_nobody_names(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ANDROID_NDK_HOME", str(tmp_path))
        finding = look("android-ndk")
        assert finding.status == "missing"
        assert str(tmp_path) in finding.remedy.commands[0]
