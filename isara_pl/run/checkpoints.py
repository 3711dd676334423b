"""Checkpoints on disk: written whole, and read without executing anything."""

import hashlib
import io
import pickle  # for the name of an error
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from isara_pl.errors import InputError, first_line
from isara_pl.run.files import save_whole


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it, and reads plain values and tensors only.

    Lightning's own goes by the system's folder for temporary files, from which a rename to another disk
    is a copy that a kill leaves half-done.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint that can be read again.

        Raises InputError if it cannot be written, or holds more than plain values and tensors.
        """
        content = io.BytesIO()  # torch's own writing into a file hides what went wrong
        torch.save(checkpoint, content)
        content.seek(0)
        try:
            torch.load(content, map_location="meta", weights_only=True)  # reads no tensor's numbers
        except pickle.UnpicklingError as error:
            raise InputError(
                f"{path} was not written: it would hold more than plain values and tensors, and could not be loaded "
                "again. Look at what state_dict() and on_save_checkpoint() of your callbacks and modules give"
            ) from error
        save_whole(Path(path), content.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint on the CPU, with `weights_only` always true, whatever was asked for.

        Raises InputError if it is damaged, or holds more than plain values and tensors.
        """
        try:
            checkpoint: dict[str, Any] = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except FileNotFoundError:
            raise InputError(f"ckpt_path: no such file: {path}") from None
        except Exception as error:  # zipfile, pickle and torch have errors of many types for a damaged file
            raise InputError(
                f"ckpt_path: {path} is damaged, or holds more than values and tensors, and was not loaded "
                f"({first_line(error)}). Take another one of {Path(path).parent}"
            ) from error
        return checkpoint


def base_fingerprint(model: torch.nn.Module) -> str:
    """Hash a few weights of every layer of the base: enough to tell two models apart, in no time.

    LoRA weights are left out.
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            digest.update(name.encode() + str(tuple(parameter.shape)).encode())
            digest.update(parameter.detach().flatten()[:16].cpu().float().numpy().tobytes())
    return digest.hexdigest()


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """Hash weights, every bit of them: equal hashes are equal weights."""
    digest = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def check_base(found: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Refuse the adapter of another base, each with the fields `name` and `fingerprint`."""
    if found.get("fingerprint") != expected["fingerprint"]:
        raise InputError(
            f"the checkpoint's adapter was trained on {found.get('name')}, not on {expected['name']}. "
            "Give the model.name, model.quantization and model.dtype (or trainer.precision) of its run"
        )


def check_shapes(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], model: str) -> None:
    """Refuse the weights of another adapter. Raises InputError if names or shapes differ."""
    shapes = [{name: weight.shape for name, weight in weights.items()} for weights in (found, expected)]
    differing = sorted(
        name for name in shapes[0].keys() | shapes[1].keys() if shapes[0].get(name) != shapes[1].get(name)
    )
    if differing:
        raise InputError(
            f"the checkpoint's adapter does not fit {model} with these LoRA options: "
            f"{len(differing)} weights differ, first {differing[0]}. Give the model.name and model.lora of its run"
        )
