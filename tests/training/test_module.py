import copy
import json

import pytest
import torch
from conftest import ARCHITECTURES, make_model
from helpers.command_line import fit, rows
from helpers.module import batch_of, data_module, trainer_in
from lightning.pytorch import Callback
from peft import PeftModel
from transformers import AutoModelForCausalLM

from isara_pl.callbacks.adapter_export import write_adapter
from isara_pl.cli.main import main
from isara_pl.errors import InputError
from isara_pl.generation.protocol import Sampling
from isara_pl.models.adapter import LoraOptions
from isara_pl.module import IsaraModule
from isara_pl.training.step import learning_rate_at


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_changes_the_adapter_and_not_the_base_and_the_adapter_loads_with_plain_peft(
    tiny, architecture, seeds_file, tmp_path
):
    name = tiny(architecture)
    module = IsaraModule(name, learning_rate=1e-2)
    module.configure_model()
    before = {key: value.clone() for key, value in module.adapted.named_parameters()}
    trainer_in(tmp_path).fit(module, data_module(name, seeds_file))
    for key, value in module.adapted.named_parameters():
        if "lora_B" in key:
            assert not torch.equal(value, before[key]), f"{key} was not trained"
        elif "lora_" not in key:
            assert torch.equal(value, before[key]), f"{key} of the base was changed"
    write_adapter(module, tmp_path)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(name), tmp_path / "adapter").eval()
    ids = torch.tensor([module.tokenizer("Question: Why so?\nAnswer:").input_ids])
    with torch.no_grad():
        trained = module.adapted.eval()(input_ids=ids).logits
        untrained = AutoModelForCausalLM.from_pretrained(name).eval()(input_ids=ids).logits
        assert torch.equal(plain(input_ids=ids).logits, trained)
        assert not torch.allclose(untrained, trained, atol=1e-3)


@pytest.mark.parametrize(
    ("precision", "base"),
    [
        ("32-true", torch.float32),
        ("bf16-mixed", torch.bfloat16),
        ("16-mixed", torch.bfloat16),
        ("bf16-true", torch.bfloat16),
        ("16-true", torch.float16),
    ],
)
def test_every_precision_trains_an_fp32_adapter_on_a_base_of_its_type(
    tiny_llama, seeds_file, tmp_path, precision, base
):
    module = IsaraModule(tiny_llama)
    losses: list[float] = []
    trainer = trainer_in(tmp_path, precision=precision)  # on a CPU, Lightning makes 16-mixed bf16-mixed
    step = module.training_step

    def record(batch, batch_idx):
        losses.append(step(batch, batch_idx))
        return losses[-1]

    module.training_step = record
    trainer.fit(module, data_module(tiny_llama, seeds_file))
    dtypes = {("lora_" in key): value.dtype for key, value in module.adapted.named_parameters()}
    assert dtypes == {True: torch.float32, False: base}
    moments = [one for state in trainer.optimizers[0].state.values() for one in state.values()]
    assert {one.dtype for one in moments} == {torch.float32}
    assert {name: one.dtype for name, one in module.named_buffers() if one.dtype != torch.float32} == {}, "rotary"
    if base == torch.bfloat16:  # the fresh adapter depends on the type of the base alone
        fresh = IsaraModule(tiny_llama, dtype="bfloat16")
        fresh.configure_model()
        assert all(torch.equal(module._fresh_adapter[key], value) for key, value in fresh.state_dict().items())
    assert all(torch.isfinite(loss) for loss in losses)


def test_a_checkpoint_holds_the_adapter_and_not_the_base(tiny_llama, seeds_file, tmp_path):
    module = IsaraModule(tiny_llama)
    trainer = trainer_in(tmp_path)
    trainer.fit(module, data_module(tiny_llama, seeds_file))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert checkpoint["state_dict"]
    assert all("lora_" in key for key in checkpoint["state_dict"])
    again = IsaraModule.load_from_checkpoint(tmp_path / "a.ckpt", name=tiny_llama)
    ids = batch_of(module)["input_ids"]
    with torch.no_grad():
        assert torch.equal(again.adapted.eval()(input_ids=ids).logits, module.adapted.eval()(input_ids=ids).logits)


def test_a_checkpoint_of_another_base_or_other_lora_options_is_refused(tiny_llama, seeds_file, tmp_path):
    trainer = trainer_in(tmp_path)
    trainer.fit(IsaraModule(tiny_llama), data_module(tiny_llama, seeds_file))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    other = make_model(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match=rf"was trained on {tiny_llama} \(none, torch.float32\), not on {other}"):
        IsaraModule.load_from_checkpoint(tmp_path / "a.ckpt", name=other)
    with pytest.raises(InputError, match=r"\d+ weights differ.*model\.lora"):
        IsaraModule.load_from_checkpoint(tmp_path / "a.ckpt", name=tiny_llama, lora=LoraOptions(r=4))


def test_the_same_seed_gives_the_same_fresh_adapter(tiny_llama):
    states = []
    for seed in (1, 1, 2):
        torch.rand(3)  # the process's own random state makes no difference
        module = IsaraModule(tiny_llama, seed=seed)
        module.configure_model()
        states.append(torch.cat([value.flatten() for key, value in module.state_dict().items() if "lora_A" in key]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_the_schedule_rises_then_falls_inside_every_outer_epoch_with_a_lower_peak(tiny_llama, seeds_file, tmp_path):
    module = IsaraModule(
        tiny_llama, learning_rate=1e-3, learning_rate_decay=0.5, warmup_share=0.25, epochs_per_outer_epoch=2
    )
    data = data_module(tiny_llama, seeds_file, batch_size=2, epochs_per_outer_epoch=2)
    data.outer_epochs = 2  # two outer epochs without growth: enough to see the schedule
    rates: list[float] = []
    hook = module.on_train_batch_start

    def record(batch, batch_idx):
        hook(batch, batch_idx)
        rates.append(module.optimizers().param_groups[0]["lr"])

    module.on_train_batch_start = record
    trainer_in(tmp_path, max_epochs=4).fit(module, data)
    assert len(rates) == 16
    first, second = rates[:8], rates[8:]
    assert max(first) == pytest.approx(1e-3)
    assert max(second) == pytest.approx(5e-4)
    for part in (first, second):
        assert part[:2] == sorted(part[:2])
        assert part[2:] == sorted(part[2:], reverse=True)
        assert part[0] == pytest.approx(max(part) / 2)


def test_learning_rate_at_its_corners():
    assert learning_rate_at(0, 10, 1.0, 0.0) == 1.0
    assert learning_rate_at(0, 10, 1.0, 0.2) == 0.5
    assert learning_rate_at(2, 10, 1.0, 0.2) == 1.0
    assert learning_rate_at(6, 10, 1.0, 0.2) == pytest.approx(0.5)
    assert learning_rate_at(0, 1, 1.0, 0.03) == 1.0


@pytest.mark.parametrize("start_from", ["latest", "base"])
def test_an_outer_epoch_starts_with_a_fresh_optimiser_and_from_the_weights_asked_for(
    tiny_llama, seeds_file, tmp_path, start_from
):
    module = IsaraModule(tiny_llama, learning_rate=1e-2, start_from=start_from)
    data = data_module(tiny_llama, seeds_file)
    data.outer_epochs = 2
    starts, optimizer_states = [], []
    hook = module.on_train_epoch_start

    def record():
        hook()
        starts.append(copy.deepcopy(module.state_dict()))
        optimizer_states.append(len(module.optimizers(use_pl_optimizer=False).state))

    module.on_train_epoch_start = record
    trainer_in(tmp_path, max_epochs=2).fit(module, data)
    assert optimizer_states == [0, 0]
    equal = all(torch.equal(starts[0][key], starts[1][key]) for key in starts[0])
    assert equal is (start_from == "base")


def test_the_trained_adapter_survives_an_alpha_stop_with_start_from_base(tiny_llama, seeds_file, tmp_path):
    class StopBeforeTheSecond(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 1

    module = IsaraModule(tiny_llama, learning_rate=1e-2, start_from="base")
    data = data_module(tiny_llama, seeds_file)
    data.outer_epochs = 2
    trainer_in(tmp_path, max_epochs=2, callbacks=[StopBeforeTheSecond()]).fit(module, data)
    assert max(value.abs().max() for key, value in module.state_dict().items() if "lora_B" in key) > 0


def test_pairs_are_cut_to_the_models_window(seeds_file, tmp_path):
    name = make_model(tmp_path / "short", "gpt2", window=48)
    trainer_in(tmp_path).fit(IsaraModule(name), data_module(name, seeds_file, max_length=2048))


@pytest.mark.slow
def test_bf16_true_is_a_16_bit_base_with_an_adapter_in_float32_in_every_subcommand(options, tmp_path):
    """All of a run with it is that of the plain model with such a base, to the last bit."""
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "Why is the sky blue?"}\n')
    own = ["--model.prediction_sampling.max_new_tokens=8", f"--data.questions={questions}"]
    options = [*options, "--data.outer_epochs=1"]
    folders = [tmp_path / "true", tmp_path / "plain"]
    precisions = [["--trainer.precision=bf16-true"], ["--trainer.precision=32-true", "--model.dtype=bfloat16"]]
    figures = []
    for folder, precision in zip(folders, precisions, strict=True):
        fit(folder, options, *precision)
        for subcommand in ("validate", "predict"):
            main([subcommand, *options, *precision, *own, f"--run_dir={folder}", "--ckpt_path=last"])
        figures.append([{**row, "seconds": ""} for row in rows(folder)])
    assert figures[0] == figures[1]
    for name in ("pool.jsonl", "rejected.jsonl", "adapter/adapter_model.safetensors", "predictions.jsonl"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name


def test_a_module_is_moved_without_a_change_of_types(tiny_llama):
    module = IsaraModule(tiny_llama, dtype="bfloat16")
    module.configure_model()
    before = {name: value.dtype for name, value in module.adapted.named_parameters()}
    for to in ((torch.float16,), ("cpu", torch.float16), (torch.zeros(1, dtype=torch.float64),)):
        assert module.to(*to) is module
    assert {name: value.dtype for name, value in module.to(dtype=torch.float64).adapted.named_parameters()} == before
    assert module.to("meta").adapted.device.type == "meta"


def test_measuring_in_float32_gives_the_base_back_bit_by_bit_and_trainable_through(tiny_llama):
    module = IsaraModule(tiny_llama, dtype="bfloat16")
    module.configure_model()
    before = {name: value.detach().clone() for name, value in module.adapted.named_parameters()}
    with torch.inference_mode():  # as Lightning's validation runs
        module.on_validation_epoch_start()
        assert {value.dtype for value in module.adapted.parameters()} == {torch.float32}
        module.on_validation_epoch_end()
    for name, value in module.adapted.named_parameters():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])
    module.adapted(input_ids=torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]])).loss.backward()


def test_pretrained_switches_the_adapter_off(tiny_llama, seeds_file, tmp_path):
    module = IsaraModule(tiny_llama, learning_rate=5e-2)
    trainer_in(tmp_path, max_epochs=1).fit(module, data_module(tiny_llama, seeds_file, batch_size=1))
    fresh = IsaraModule(tiny_llama)
    fresh.configure_model()
    prompts, greedy = ["Question: Why so?\nAnswer:", "Question: Who?\nAnswer:"], Sampling(do_sample=False)
    seeds = [0, 0]
    trained = module.generate(prompts, greedy, seeds)
    with module.pretrained():
        assert module.generate(prompts, greedy, seeds) == fresh.generate(prompts, greedy, seeds) != trained
    assert module.generate(prompts, greedy, seeds) == trained
    assert module.adapted.training


def test_validation_measures_the_answers_without_their_end(tiny_llama, seeds_file, held_out_file, tmp_path):
    module = IsaraModule(tiny_llama)
    data = data_module(tiny_llama, seeds_file, held_out=held_out_file, batch_size=2)
    (figures,) = trainer_in(tmp_path).validate(module, data, verbose=False)
    total, count = 0.0, 0
    plain = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    for item in data.held_out:
        prompt = module.tokenizer(f"Question: {item.question}\nAnswer:").input_ids
        ids = module.tokenizer(f"Question: {item.question}\nAnswer: {item.answer}").input_ids
        with torch.no_grad():
            logs = plain(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        total -= sum(logs[i - 1, ids[i]].item() for i in range(len(prompt), len(ids)))
        count += len(ids) - len(prompt)
    assert figures["answer_nll"] == pytest.approx(total / count, rel=1e-4)


@pytest.mark.parametrize("subcommand", ["validate", "test"])
def test_measuring_a_part_of_the_pairs_takes_long_ones_too(tiny_llama, seeds_file, tmp_path, monkeypatch, subcommand):
    held_out = tmp_path / "sorted.jsonl"
    rows = [{"question": f"What is {'very ' * number}tall?", "answer": f"Thing {number}."} for number in range(40)]
    held_out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen: list[list[str]] = []
    step = IsaraModule.validation_step

    def record(module, batch, batch_idx, dataloader_idx=0):
        seen[-1] += batch["sample_ids"]
        step(module, batch, batch_idx, dataloader_idx)

    monkeypatch.setattr(IsaraModule, "validation_step", record)
    for limit in (1.0, 5, 0.5, 5):
        seen.append([])
        limits = {f"limit_{'val' if subcommand == 'validate' else 'test'}_batches": limit}
        data = data_module(tiny_llama, seeds_file, held_out=str(held_out), batch_size=2)
        getattr(trainer_in(tmp_path, **limits), subcommand)(IsaraModule(tiny_llama), data, verbose=False)
    whole, five, half, again = ([int(name.split("-")[-1]) for name in names] for names in seen)
    assert whole == sorted(whole), "all pairs: the shortest first"
    assert set(five) < set(half)
    assert five == again
    assert 12 < sum(five) / len(five) < 28  # around the mean of all, 20.5
    assert len(five) == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0}, r"model\.learning_rate is 0; allowed: above 0"),
        ({"warmup_share": 1.0}, r"model\.warmup_share is 1\.0"),
        ({"generation_tokens": 0}, r"model\.generation_tokens is 0"),
    ],
)
def test_bad_numbers_are_refused_before_anything_is_loaded(options, message):
    with pytest.raises(InputError, match=message):
        IsaraModule("nobody/never-loaded", **options)


def test_bad_lora_options_are_refused():
    with pytest.raises(InputError, match=r"model\.lora: r is 0"):
        LoraOptions(r=0)
