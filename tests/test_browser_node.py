"""WebLLM in Node.js: the GPU that it gets, and what is told where it fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from browser.node import Node
from browser.webllm import BrowserError

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(sys.platform != "linux", reason="Mesa's software GPU is packaged for Linux"),
]
TESTS = Path(__file__).parent


def test_the_gpu_has_float16(node: Node) -> None:
    adapter = node.adapter()
    assert (adapter["vendor"], adapter["architecture"]) == ("mesa", "software")
    assert "shader-f16" in adapter["features"]


def test_an_error_is_a_message_and_not_the_end(node: Node) -> None:
    with pytest.raises(BrowserError, match="TypeError"):
        node.call("no such method")
    assert node.adapter()


def test_no_answer_in_time_is_told() -> None:
    with Node(timeout=0.001) as hurried, pytest.raises(BrowserError, match="No answer within"):
        hurried.adapter()


def test_the_death_of_its_process_is_told() -> None:
    with Node() as mortal:
        mortal._process.kill()
        mortal._process.wait()
        for _ in range(2):
            with pytest.raises(BrowserError, match="ended with exit code"):
                mortal.adapter()


def test_where_no_package_manager_has_the_driver_it_is_said_what_to_install(tmp_path: Path) -> None:
    code = "from browser import lavapipe; lavapipe.fetch()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PATH": str(tmp_path)}, cwd=TESTS,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "apt install mesa-vulkan-drivers" in done.stderr.splitlines()[-1]
