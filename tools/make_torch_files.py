"""The PyTorch files of tests/data/torch: what torch.save itself writes for tensors of every kind.

    pip install --group reference .
    python tools/make_torch_files.py tests/data/torch

FOLDER/KIND.bin for each kind of file, and FOLDER/expected.safetensors with the tensors that they hold,
written by safetensors after PyTorch has loaded them again.
"""

import sys
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file


def tensors() -> "OrderedDict[str, torch.Tensor]":
    """Small tensors of every layout that a state dict is known to have."""
    torch.manual_seed(0)
    shared = torch.randn(6, 8)
    matrix = torch.randn(5, 7)
    return OrderedDict(
        f32=torch.randn(3, 4),
        f16=torch.randn(3, 4).half(),
        bf16=torch.randn(3, 4).bfloat16(),
        vector=torch.randn(9),
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 4),
        cube=torch.randn(2, 3, 4).half(),
        shared=shared,
        tied=shared,
        rows=shared[2:5],
        columns=shared[:, 3:6],
        steps=shared[::2, 1::3],
        transposed=matrix.t(),
        permuted=torch.randn(2, 3, 4).permute(2, 0, 1),
        expanded=torch.randn(1, 6).expand(4, 6),
        parameter=torch.nn.Parameter(torch.randn(2, 2)),
        integers=torch.arange(5),
        bits=torch.arange(3).to(torch.uint32),
    )


def main() -> None:
    """Write the files."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    state = tensors()
    state._metadata = OrderedDict({"": {"version": 1}})  # as the state dict of a module has it
    torch.save(state, folder / "zip.bin")
    torch.save(dict(state), folder / "protocol-4.bin", pickle_protocol=4)
    torch.save(state, folder / "legacy.bin", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": dict(state), "epoch": 3}, folder / "training.bin")
    loaded = torch.load(folder / "zip.bin", weights_only=True)
    save_file(
        {name: t.detach().contiguous().clone() for name, t in loaded.items()}, folder / "expected.safetensors"
    )


if __name__ == "__main__":
    main()
