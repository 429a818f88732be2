"""The children that ask the Hub, run against the small Hub on loopback."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import GOLDEN
from hub_server import Hub, Repository, serving

EXTRA = {
    "README.md": b"# a model",
    "pytorch_model.bin": b"p" * 4000,
    "model-q4.gguf": b"g" * 4000,
    "onnx/model.onnx": b"o" * 4000,
    "consolidated.safetensors": b"c" * 4000,
    "original/tokenizer.model": b"t" * 400,
}
RECORD = "\x1e"


def files_of(name: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (GOLDEN / name / "hf").iterdir()}


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A Hub with a model in one file and one in several, one that is gated and one that is private."""
    with serving(
        org__tiny=Repository(files=files_of("gemma3_text") | EXTRA, revisions=("main", "v1")),
        org__sharded=Repository(files=files_of("llama") | EXTRA),
        org__gated=Repository(files=files_of("llama_tied"), gated=True),
        org__private=Repository(files=files_of("llama_tied"), private=True, token="hf_private"),
    ) as running:
        yield running


@dataclass
class Client:
    """Runs the children that ask the Hub as a user would, with a cache of their own."""

    hub: Hub
    home: Path

    def environment(self, **more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        own = {"HF_ENDPOINT": self.hub.endpoint, "HF_HOME": str(self.home), "MLC_WIZARD_RECORDS": "1"}
        # Loopback is never reached through a proxy, whatever this machine is set to.
        return kept | own | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"} | more

    def start(self, *arguments: str, module: str = "hub", **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-P", "-m", f"engine.model.{module}", *arguments],
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def look(self, *arguments: str, **environment: str) -> "Fetched":
        return self.fetch(*arguments, module="look", **environment)

    def fetch(self, *arguments: str, module: str = "hub", **environment: str) -> "Fetched":
        child = self.start(*arguments, module=module, **environment)
        out, err = child.communicate(timeout=120)
        return Fetched(child.returncode, out, err)

    def fetch_after(self, code: str, repo_id: str) -> "Fetched":
        """Run `code` in the child, then fetch."""
        done = subprocess.run(
            [sys.executable, "-c", f"import sys\n{code}\nsys.exit(hub.main([{repo_id!r}]))"],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Fetched(done.returncode, done.stdout, done.stderr)


@dataclass
class Fetched:
    code: int
    stdout: str
    stderr: str

    def records(self, kind: str) -> list[dict[str, Any]]:
        found = [json.loads(line[1:]) for line in self.stderr.split("\n") if line.startswith(RECORD)]
        return [record[kind] for record in found if kind in record]

    @property
    def folder(self) -> Path:
        assert self.code == 0, self.stderr
        return Path(self.records("result")[0]["folder"])

    @property
    def error(self) -> str:
        [told] = self.records("error")
        assert told["exit_code"] == self.code
        assert "Traceback" not in self.stderr
        return "\n".join((told["what"], told["why"], told["remedy"]))
