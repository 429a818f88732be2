"""Hosts as `--host` names them, and what libraries for them are called."""

import sys

import pytest

from engine import catalog, hosts
from engine.catalog import TARGETS, host_of, library_suffix, target_of
from engine.errors import UsageError
from engine.hosts import Host

LINUX = Host(architecture="x86_64", system="linux", libc="gnu")
ARM_MAC = Host(architecture="aarch64", system="macos")


@pytest.mark.parametrize(
    ("triple", "architecture", "system", "libc"),
    [
        ("x86_64-linux-gnu", "x86_64", "linux", "gnu"),
        ("x86_64-pc-linux-gnu", "x86_64", "linux", "gnu"),
        ("x86_64-unknown-linux-musl", "x86_64", "linux", "musl"),
        ("aarch64-linux-gnu", "aarch64", "linux", "gnu"),
        ("arm64-apple-darwin", "aarch64", "macos", ""),
        ("arm64-apple-macos13.0", "aarch64", "macos", ""),
        ("x86_64-apple-macosx10.15", "x86_64", "macos", ""),
        ("arm64-apple-ios", "aarch64", "ios", ""),
        ("arm64-apple-ios16.0", "aarch64", "ios", ""),
        ("x86_64-pc-windows-msvc", "x86_64", "windows", ""),
        ("x86_64-w64-windows-gnu", "x86_64", "windows", ""),
        ("aarch64-linux-android", "aarch64", "android", ""),
        ("aarch64-linux-android24", "aarch64", "android", ""),
    ],
)
def test_triples_in_their_usual_forms(triple: str, architecture: str, system: str, libc: str) -> None:
    host = hosts.parse(triple)
    assert (host.architecture, host.system, host.libc) == (architecture, system, libc)
    # What is handed to LLVM names the same host.
    assert hosts.parse(host.triple) == host


def test_a_processor_is_named_as_llvm_has_it() -> None:
    named = hosts.parse("x86_64-linux-gnu -mcpu=x86-64-v2")
    assert (named.cpu, named.triple) == ("x86-64-v2", LINUX.triple)
    assert str(named) == "x86-64 Linux, x86-64-v2"
    assert LINUX.cpu == "x86-64-v3", "which is what nobody has to name"
    assert hosts.parse("arm64-apple-macos  -mcpu=apple-m4").cpu == "apple-m4"


@pytest.mark.parametrize(
    "triple",
    ["", "linux", "x86_64", "riscv64-linux-gnu", "i686-pc-windows-msvc", "arm64-apple-ios18.0-macabi",
     "arm64-apple-ios-simulator", "x86_64-unknown-freebsd", "wasm32-unknown-unknown", "x86_64-apple-ios",
     "x86_64-linux-gnu -march=native",
     "x86_64-linux-gnu -mcpu=", "-mcpu=x86-64-v2", "x86_64-linux-gnu -mcpu=a -mcpu=b"],
)  # fmt: skip
def test_hosts_that_no_library_is_made_for(triple: str) -> None:
    with pytest.raises(UsageError, match="is not a processor and a system") as caught:
        hosts.parse(triple)
    assert all(hosts.parse(example) for example in hosts.EXAMPLES if example in str(caught.value))


@pytest.mark.parametrize(
    ("device", "host", "suffix"),
    [
        ("webgpu", "auto", ".wasm"),
        ("cpu", "aarch64-linux-musl", ".so"),
        ("cpu", "arm64-apple-macos", ".dylib"),
        ("cpu", "x86_64-windows-gnu", ".dll"),
        ("cuda", "x86_64-linux-gnu", ".so"),
        ("cuda", "x86_64-windows-msvc", ".dll"),
        ("metal", "arm64-apple-macos", ".so"),
        ("metal", "x86_64-apple-macos", ".dylib"),
        ("vulkan", "x86_64-windows-msvc", ".dll"),
        ("opencl", "aarch64-linux-gnu", ".so"),
        ("iphone", "auto", ".tar"),
        ("iphone", "arm64-apple-ios", ".tar"),
        ("android", "auto", ".tar"),
    ],
)
def test_the_suffix_is_that_of_the_system_it_runs_on(device: str, host: str, suffix: str) -> None:
    assert library_suffix(TARGETS[device], host) == suffix
    assert suffix in TARGETS[device].suffixes


@pytest.mark.parametrize(("platform", "suffix"), [("linux", ".so"), ("darwin", ".so"), ("win32", ".dll")])
def test_without_a_host_it_is_this_machine_or_its_like(
    platform: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no CUDA on a Mac: the library made there is for Linux."""
    monkeypatch.setattr(sys, "platform", platform)
    assert library_suffix(TARGETS["cuda"]) == suffix
    assert host_of(TARGETS["metal"], "auto").system == "macos"
    assert host_of(TARGETS["iphone"], "auto") == Host(architecture="aarch64", system="ios")
    assert host_of(TARGETS["android"], "auto") == Host(architecture="aarch64", system="android")


@pytest.mark.parametrize(
    ("device", "host"),
    [("cuda", "arm64-apple-macos"), ("metal", "x86_64-linux-gnu"), ("iphone", "aarch64-linux-android"),
     ("android", "arm64-apple-ios"), ("cpu", "arm64-apple-ios")],
)  # fmt: skip
def test_a_host_without_the_device(device: str, host: str) -> None:
    with pytest.raises(UsageError, match=f"A library for {device} cannot be made for"):
        host_of(TARGETS[device], host)


def test_hosts_are_told_as_people_say_them() -> None:
    assert str(LINUX) == "x86-64 Linux"
    assert str(hosts.parse("aarch64-linux-musl")) == "AArch64 Linux (musl)"
    assert str(ARM_MAC) == "AArch64 macOS"


def test_targets_by_the_name_of_a_library() -> None:
    for target in TARGETS.values():
        for suffix in target.suffixes:
            assert target_of(f"model-{target.name}{suffix}") == target.name
    for other in ("model-toaster.so", "model.so", "model-cpu.txt", "my-model-cpu.so", ""):
        assert target_of(other) == ""


def test_this_machine_has_a_library_suffix() -> None:
    assert hosts.here().suffix == catalog.host_library_suffix()
