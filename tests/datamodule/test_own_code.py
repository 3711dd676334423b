"""What someone meets whose Lightning code is there already: refused in a sentence before anything grows, or it works."""

import importlib
import logging
import re
import warnings
from types import SimpleNamespace

import pytest
import torch
from helpers.datamodule import KeepFirst, Plain, data_module, trainer_in
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging, WeightAveraging
from lightning_utilities.core import rank_zero

from isara_pl import IsaraDataModule, IsaraModule, Sampling
from isara_pl.callbacks import (
    AdapterExport,
    AlphaStopping,
    BestEpoch,
    HarmPreferenceEvaluation,
    OuterEpochTable,
    RewardEvaluation,
    TruthfulnessEvaluation,
)
from isara_pl.errors import InputError
from isara_pl.growth.outer_epoch import GrowthSettings
from isara_pl.report.findings import stopped
from isara_pl.report.gather import gather
from isara_pl.results.run import Run

# -- the other namespace


@pytest.fixture
def pytorch_lightning():
    """The other namespace, imported here alone: with it, what both log goes to a logger of its name."""
    log = rank_zero.log
    yield importlib.import_module("pytorch_lightning")
    rank_zero.log = log


@pytest.mark.parametrize("with_callbacks", [True, False])
def test_a_trainer_of_pytorch_lightning_is_refused_with_the_import_that_works(
    pytorch_lightning, seeds_file, tiny_encoder, tmp_path, with_callbacks
):
    class Other(pytorch_lightning.LightningModule):
        generate, training_step, configure_optimizers = Plain.generate, Plain.training_step, Plain.configure_optimizers

    trainer = pytorch_lightning.Trainer(
        default_root_dir=tmp_path / "run",
        max_epochs=2,
        reload_dataloaders_every_n_epochs=1,
        accelerator="cpu",
        logger=False,
        callbacks=[AlphaStopping(), OuterEpochTable()] if with_callbacks else [],
    )
    with pytest.raises(InputError, match=r"Trainer comes from pytorch_lightning.*`import lightning\.pytorch as pl`"):
        trainer.fit(Other(), datamodule=data_module(seeds_file, tiny_encoder))
    assert not (tmp_path / "run/pool.jsonl").exists()


def test_a_callback_of_pytorch_lightning_is_refused_even_as_a_subclass(
    pytorch_lightning, seeds_file, tiny_encoder, tmp_path
):
    class Mine(pytorch_lightning.callbacks.EarlyStopping):
        pass

    trainer = trainer_in(tmp_path, 2, [Mine("train_loss")])
    with pytest.raises(InputError, match=r"Mine comes from pytorch_lightning.*lightning\.pytorch"):
        trainer.fit(Plain(), datamodule=data_module(seeds_file, tiny_encoder))
    assert not (tmp_path / "pool.jsonl").exists()


# -- averages of weights


@pytest.mark.parametrize(
    "averaging",
    [StochasticWeightAveraging(swa_lrs=1e-2), WeightAveraging(), EMAWeightAveraging()],
    ids=["SWA", "mean", "EMA"],
)
@pytest.mark.parametrize("ours", [True, False])
def test_averages_of_weights_are_refused(seeds_file, tiny_encoder, tiny_llama, tmp_path, averaging, ours):
    module = IsaraModule(tiny_llama) if ours else Plain()
    with pytest.raises(
        InputError, match=rf"{type(averaging).__name__} keeps averaged weights .* Take it out of trainer"
    ):
        trainer_in(tmp_path, 2, [averaging]).fit(module, datamodule=data_module(seeds_file, tiny_encoder))
    assert not (tmp_path / "pool.jsonl").exists()


# -- what needs more of a module than it has


class Validated(Plain):
    def validation_step(self, batch, batch_idx):
        pass


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (TruthfulnessEvaluation, r"TruthfulnessEvaluation needs .* Validated has no score\(prompts, answers\)"),
        (HarmPreferenceEvaluation, r"HarmPreferenceEvaluation needs .* Validated has no score\(prompts, answers\)"),
        (RewardEvaluation, r"RewardEvaluation compares .* Validated has no method pretrained\(\)"),
        (BestEpoch, r"BestEpoch needs IsaraModule, found Validated"),
        (AdapterExport, r"AdapterExport needs IsaraModule, .* found Validated"),
    ],
)
def test_what_a_module_lacks_is_said_before_anything_grows(
    seeds_file, held_out_file, pairs_file, tiny_encoder, tmp_path, callback, message
):
    options = {
        HarmPreferenceEvaluation: {"pairs": pairs_file},
        RewardEvaluation: {"prompts": pairs_file, "judge": None},
    }
    trainer = trainer_in(tmp_path / "run", 2, [callback(**options.get(callback, {}))])
    with pytest.raises(InputError, match=message):
        trainer.fit(Validated(), datamodule=data_module(seeds_file, tiny_encoder, held_out=held_out_file))
    assert not (tmp_path / "run/rejected.jsonl").exists()


def test_scores_without_a_tokenizer_are_refused(seeds_file, held_out_file, tiny_encoder, tmp_path):
    class Scoring(Validated):
        def score(self, prompts, answers):
            return [-1.0 for _ in prompts]

    data = data_module(seeds_file, tiny_encoder, held_out=held_out_file)
    with pytest.raises(InputError, match=r"Scoring has no `tokenizer` with encode\(text\)"):
        trainer_in(tmp_path, 2, [TruthfulnessEvaluation()]).fit(Scoring(), datamodule=data)


def test_a_score_that_loses_answers_is_an_error(seeds_file, held_out_file, tiny_encoder, tmp_path):
    class Losing(Validated):
        tokenizer = type("Words", (), {"encode": staticmethod(str.split)})

        def score(self, prompts, answers):
            return [-1.0]

    data = data_module(seeds_file, tiny_encoder, held_out=held_out_file)
    with pytest.raises(InputError, match=r"Losing\.score gave 1 numbers for \d+ answers"):
        trainer_in(tmp_path, 2, [TruthfulnessEvaluation()]).validate(Losing(), datamodule=data)


# -- the module's tokenizer


def test_the_tokenizer_of_isara_module_is_taken_and_of_no_other(seeds_file, tiny_encoder, tiny_llama, tmp_path):
    data = data_module(seeds_file, tiny_encoder, outer_epochs=1, candidates_per_outer_epoch=0)
    trainer = trainer_in(tmp_path / "ours", 1)
    trainer.fit(IsaraModule(tiny_llama), datamodule=data)
    assert trainer.callback_metrics["train_loss"] > 0
    assert data.tokenizer is trainer.lightning_module.tokenizer
    plain = Plain()
    trainer_in(tmp_path / "plain", 1).fit(plain, datamodule=data)  # its batches are texts again
    assert len(plain.trained[0]) == len(data.seeds)
    named = data_module(seeds_file, tiny_encoder, outer_epochs=1, candidates_per_outer_epoch=0, tokenizer=tiny_llama)
    conditions = []
    for given in (data, named):
        trainer = trainer_in(tmp_path / f"again-{given is named}", 1)
        trainer.fit(IsaraModule(tiny_llama), datamodule=given)
        conditions.append(given.conditions())
    assert conditions[0] == conditions[1]


# -- the window of a module of one's own


@pytest.mark.parametrize("told_by", ["context_window", "max_position_embeddings", "n_positions", "block_size"])
def test_what_does_not_fit_the_window_is_left_out_of_contexts_and_counted(seeds_file, tiny_encoder, tmp_path, told_by):
    room = len("Question: Why is the sky like that on day number 0?\nAnswer: ")
    room += len("Because sky scatters light in its own way 0.\n\nQuestion:")  # a moon, a wind has two letters more

    class Letters(Plain):
        tokenizer = SimpleNamespace(encode=list)

    module = Letters()
    if told_by == "context_window":
        module.context_window = room + 20
    else:
        module.model = torch.nn.Linear(1, 1)
        module.model.config = SimpleNamespace(**{told_by: room + 20})
    options = {"max_new_tokens": 20}
    data = data_module(seeds_file, tiny_encoder, question_sampling=options, answer_sampling=options)
    with pytest.warns(UserWarning, match="outer epoch [12]: 4 samples of the pool stand in no context") as told:
        trainer_in(tmp_path, 2).fit(module, datamodule=data)
    assert sum("stand in no context" in str(one.message) for one in told) == 2
    assert all(len(prompt) <= room for prompt in module.fake.prompts)
    assert not [prompt for prompt in module.fake.prompts if re.search("moon|wind|rain|snow", prompt)]


# -- options as mappings


def test_a_mapping_stands_for_options_and_a_mistyped_one_is_named(seeds_file, tiny_encoder, tiny_llama):
    data = data_module(seeds_file, tiny_encoder, question_sampling={"max_new_tokens": 7, "top_p": 0.5})
    assert data.settings.question_sampling == Sampling(max_new_tokens=7, top_p=0.5)
    with pytest.raises(InputError, match=r"data\.answer_sampling: no option 'temprature'\. Did you mean temperature\?"):
        data_module(seeds_file, tiny_encoder, answer_sampling={"temprature": 0.5})
    with pytest.raises(InputError, match=r"model\.lora is 4; allowed: isara_pl's LoraOptions, or a mapping"):
        IsaraModule(tiny_llama, lora=4)
    assert IsaraModule(tiny_llama, lora={"r": 4, "targets": ("q_proj",)}).lora.targets == ["q_proj"]


def test_growth_alone_has_the_defaults_of_the_data_module(seeds_file):
    assert IsaraDataModule(seeds_file).settings == GrowthSettings()


# -- a cell that is run again


def said(caplog) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


def test_a_cell_that_is_run_again_says_that_it_goes_on_with_the_pool(seeds_file, tiny_encoder, tmp_path, caplog):
    caplog.set_level(logging.INFO)

    def cell() -> Plain:
        module = Plain()
        trainer_in(tmp_path, 2, [KeepFirst(2, 3)]).fit(module, datamodule=data_module(seeds_file, tiny_encoder))
        return module

    assert cell().fake.prompts
    assert "continuing" not in said(caplog)
    again = cell()
    assert not again.fake.prompts
    assert f"continuing the pool in {tmp_path}: 5 samples of outer epochs up to 2 were accepted there" in said(caplog)


def test_a_cell_without_growth_that_is_run_again_says_that_it_begins_anew(seeds_file, tiny_encoder, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    options = {"candidates_per_outer_epoch": 0, "outer_epochs": 1}
    for told in (False, True):
        trainer_in(tmp_path, 1).fit(Plain(), datamodule=data_module(seeds_file, tiny_encoder, **options))
        assert (f"beginning anew in {tmp_path}" in said(caplog)) is told


# -- the report of a run in one's own code


class EndsAfterOne(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = True


@pytest.mark.parametrize(
    ("callbacks", "answer"),
    [
        ([KeepFirst(4, 0), AlphaStopping(0.5)], r"0 of 4 candidates accepted, .* below α = 0\.5"),
        ([KeepFirst(0, 0), AlphaStopping(0.5)], r"ended it in the very first outer epoch"),
        ([KeepFirst(4, 4), AlphaStopping(0.5)], r"All 2 outer epochs were done; .* never fell below α = 0\.5"),
        ([KeepFirst(4, 4)], r"All 2 outer epochs were done\."),
        ([EndsAfterOne()], r"not finished: 1 of 2 outer epochs trained"),
    ],
)
def test_why_a_run_of_ones_own_code_stopped_is_known_without_a_config(
    seeds_file, tiny_encoder, tmp_path, callbacks, answer
):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer_in(tmp_path, 2, callbacks).fit(Plain(), datamodule=data_module(seeds_file, tiny_encoder))
    run = Run(tmp_path)
    report = gather(run, [], None)
    alphas = [callback.alpha for callback in callbacks if isinstance(callback, AlphaStopping)]
    assert report.alpha == (alphas[0] if alphas else None)
    (found,) = [one for one in report.findings if one.question == stopped(run, report.grown).question]
    assert re.search(answer, found.answer), found.answer
