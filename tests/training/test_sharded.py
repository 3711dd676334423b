"""AdapterFSDP on two processes: the base in parts, and everything else as a single process has it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import write_seeds
from helpers.several_processes import LIMIT
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.plugins.environments import LightningEnvironment
from safetensors.torch import load_file
from torch import distributed

from isara_pl.datamodule.checks import check_processes
from isara_pl.errors import InputError
from isara_pl.generation import engine
from isara_pl.models.adapter import MergedWeights
from isara_pl.models.loading import load_causal_lm
from isara_pl.module import IsaraModule
from isara_pl.strategies import AdapterFSDP

ITEM = {"question": "Is the sky warm?", "best_answer": "no", "correct_answers": ["no", "not at all"]}


@pytest.fixture
def files(tmp_path, tiny_encoder):
    folder = tmp_path / "files"
    folder.mkdir()
    write_seeds(folder)
    (folder / "held_out.jsonl").write_text(
        "".join(
            json.dumps({"question": f"Why is it {n} here?", "answer": f"It is {n} there."}) + "\n" for n in range(5)
        )
    )
    items = [{**ITEM, "question": f"Is the sky warm {n}?", "incorrect_answers": ["yes", "blue"]} for n in range(3)]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (folder / "encoder").symlink_to(tiny_encoder)
    return str(folder)


def run(folder: Path, speaker: str, files: str, kind: str, **more: object) -> dict[str, float]:
    """Run `sharded_run` in a process of its own; give what its trainer logged last."""
    done = subprocess.run(
        [sys.executable, "-m", "helpers.sharded_run", str(folder), speaker, files, kind, json.dumps(more)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=LIMIT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    said: dict[str, float] = json.loads((folder / "said.json").read_text())
    return said


def assert_like(folder: Path, other: Path, atol: float = 1e-4) -> None:
    for name in ("pool.jsonl", "rejected.jsonl"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()
    adapters = [load_file(each / "adapter/adapter_model.safetensors") for each in (folder, other)]
    assert adapters[0].keys() == adapters[1].keys()
    for name, weight in adapters[0].items():
        torch.testing.assert_close(weight, adapters[1][name], rtol=0, atol=atol)


OPTIONS = {
    "measured first": {"measured_first": True},
    "clipped, accumulated": {"clip": 0.05, "accumulate": 2},
    "from the base, distilled": {"start_from": "base", "objective": "distill"},
}


slow = pytest.mark.slow  # up to seven processes that import torch


@slow
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_sharded_run_gives_the_adapter_and_the_figures_of_ddp(files, speaker, tmp_path, options):
    ddp, sharded = (run(tmp_path / kind, speaker, files, kind, **options) for kind in ("ddp", "sharded"))
    assert_like(tmp_path / "sharded", tmp_path / "ddp")
    assert ddp.pop("sharded") == 0
    assert sharded.pop("sharded") > 10_000, "the base is in parts"
    assert sharded == pytest.approx(ddp, rel=1e-4)
    assert {"answer_nll", "mc2"} <= sharded.keys()


@slow
def test_a_cut_sharded_run_is_resumed_exactly_and_one_process_can_go_on_from_it(files, speaker, tmp_path):
    whole, cut, alone = tmp_path / "whole", tmp_path / "cut", tmp_path / "alone"
    run(whole, speaker, files, "sharded", dropout=0.1)
    run(cut, speaker, files, "sharded", dropout=0.1, max_steps=4)
    checkpoint = torch.load(cut / "checkpoints/last.ckpt", weights_only=True)
    assert all(type(weight) is torch.Tensor and "lora" in name for name, weight in checkpoint["state_dict"].items())
    shutil.copytree(cut, alone)
    run(cut, speaker, files, "sharded", dropout=0.1)
    assert_like(cut, whole, atol=0)
    run(alone, speaker, files, "one", dropout=0.1)  # which draws other dropout than a second process
    assert (alone / "pool.jsonl").read_bytes() == (whole / "pool.jsonl").read_bytes()


@slow
def test_in_bf16_a_sharded_run_measures_as_the_trainer_computes(files, speaker, tmp_path):
    options = {"precision": "bf16-mixed", "evaluation_precision": "trainer"}
    ddp, sharded = (run(tmp_path / kind, speaker, files, kind, **options) for kind in ("ddp", "sharded"))
    assert_like(tmp_path / "sharded", tmp_path / "ddp", atol=2e-2)  # a step changes a weight by 1e-2
    assert sharded["answer_nll"] == pytest.approx(ddp["answer_nll"], rel=2e-2)


# -- what a part of a model cannot do


@pytest.fixture
def strategy(tmp_path):
    """The strategy in a single process, which shards as several do."""
    strategy = AdapterFSDP(
        accelerator=CPUAccelerator(), parallel_devices=[torch.device("cpu")], cluster_environment=LightningEnvironment()
    )
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield strategy
    distributed.destroy_process_group()


def test_a_sharded_base_has_no_adapter_folded_in_and_computes_with_it_all_the_same(strategy, tiny_llama):
    module = IsaraModule(tiny_llama)
    module.configure_model()
    torch.manual_seed(0)
    for name, weight in module.adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    ids = torch.arange(5, 15).reshape(1, 10)
    with torch.no_grad():
        whole = module.adapted(ids).logits
        strategy.shard(module.adapted.get_base_model(), "float32")
        with module.merged():
            torch.testing.assert_close(module.adapted(ids).logits, whole)
        with module.pretrained():
            assert not torch.allclose(module.adapted(ids).logits, whole)
    with pytest.raises(RuntimeError, match="a sharded base has no adapter folded in"):
        MergedWeights(module.adapted)


def test_processes_in_step_make_the_same_batches_whatever_memory_each_has(strategy, tiny_llama, monkeypatch):
    monkeypatch.setattr(engine, "_free_bytes", lambda device: 1 << 30)
    base = load_causal_lm(tiny_llama, torch.float32).requires_grad_(False)  # what is trained stays whole
    assert engine.budget_of(base, "auto") != engine.Budget(engine.ON_A_CPU)
    strategy.shard(base, "float32")
    assert engine.budget_of(base, "auto") == engine.Budget(engine.ON_A_CPU)


def test_bases_that_cannot_be_sharded_are_refused(strategy, tiny_llama):
    base = load_causal_lm(tiny_llama, torch.bfloat16)
    with pytest.raises(InputError, match=r"evaluation_precision is float32, but the base is in torch\.bfloat16"):
        strategy.shard(base, "float32")
    base._no_split_modules = None
    with pytest.raises(InputError, match="names no layers"):
        strategy.shard(base, "trainer")
    base.is_quantized = True
    with pytest.raises(InputError, match=r"Allowed: model\.quantization null, or ddp"):
        strategy.shard(base, "trainer")


@pytest.mark.parametrize(
    ("stage", "said"),
    [("fit", r"a part of a model cannot generate by itself. Give a server"), ("predict", "does not predict")],
)
def test_a_part_of_a_model_neither_generates_nor_predicts(strategy, tiny_llama, stage, said):
    trainer = SimpleNamespace(
        strategy=strategy, world_size=2, lightning_module=IsaraModule(tiny_llama), state=SimpleNamespace(fn=stage)
    )
    with pytest.raises(InputError, match=said):
        check_processes(trainer, batch_size=4)
