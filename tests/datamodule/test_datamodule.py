import json
import warnings
from pathlib import Path

import pytest
import torch
from conftest import make_seeds
from helpers.datamodule import KeepFirst, Plain, data_module, trainer_in
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from isara_pl.callbacks import AlphaStopping
from isara_pl.datamodule.datamodule import IsaraDataModule
from isara_pl.errors import InputError


class CountBatches(Callback):
    """Hears of growth in one hook alone, and has no base for that."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, int]] = []

    def on_growth_batch_end(self, trainer, judged, accepted):
        self.heard.append((judged, accepted))


class StopAfter(Callback):
    """Ends a fit after so many epochs."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch + 1 == self.epochs


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_pool_file_is_what_is_trained_on_sample_for_sample(seeds_file, tiny_encoder, tmp_path):
    module = Plain()
    trainer_in(tmp_path, 2, [KeepFirst(2, 3)]).fit(module, data_module(seeds_file, tiny_encoder))
    on_disk = [(row["id"], row["question"], row["answer"]) for row in lines(tmp_path / "pool.jsonl")]
    assert sorted(module.trained[0]) == sorted(pair for pair in on_disk if not pair[0].startswith("2-"))
    assert sorted(module.trained[1]) == sorted(on_disk)
    assert len(on_disk) == len(make_seeds()) + 2 + 3
    rejected = {row["id"] for row in lines(tmp_path / "rejected.jsonl")}
    assert rejected == {"1-00002", "1-00003", "2-00003"}
    assert not rejected & {pair[0] for pairs in module.trained.values() for pair in pairs}


def test_a_callback_hears_of_growth_in_whichever_hooks_it_has(seeds_file, tiny_encoder, tmp_path):
    counts = CountBatches()
    data = data_module(seeds_file, tiny_encoder, candidates_per_batch=2)
    trainer_in(tmp_path, 2, [KeepFirst(2, 3), counts]).fit(Plain(), data)
    assert counts.heard == [(2, 2), (4, 2), (2, 2), (4, 3)]


def test_train_on_newest_leaves_earlier_outer_epochs_out(seeds_file, tiny_encoder, tmp_path):
    module = Plain()
    trainer_in(tmp_path, 2).fit(module, data_module(seeds_file, tiny_encoder, train_on="newest"))
    assert {pair[0].split("-")[0] for pair in module.trained[1]} == {"seed", "2"}


def test_growth_happens_once_in_an_outer_epoch_of_several_epochs_in_eval_mode(seeds_file, tiny_encoder, tmp_path):
    module = Plain()
    data = data_module(seeds_file, tiny_encoder, epochs_per_outer_epoch=3)
    trainer_in(tmp_path, 6).fit(module, data)
    assert [epoch for epoch, _ in module.asked] == [0, 0, 3, 3]  # questions, answers
    assert not any(training for _, training in module.asked)
    assert module.dropout.training, "and back in train mode after it"
    order = [[pair[0] for pair in module.trained[epoch]] for epoch in range(3)]
    assert sorted(order[0]) == sorted(order[1])
    assert order[0] != order[1], "another order in every epoch"


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_a_resume_grows_nothing_twice_and_ends_with_the_pool_of_an_undisturbed_run(
    seeds_file, tiny_encoder, tmp_path, stop_after
):
    options = {"epochs_per_outer_epoch": 2, "outer_epochs": 2}
    undisturbed = Plain()
    trainer_in(tmp_path / "whole", 4, [KeepFirst(2, 3)]).fit(
        undisturbed, data_module(seeds_file, tiny_encoder, **options)
    )

    checkpoint = ModelCheckpoint(tmp_path / "cut", filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    trainer_in(tmp_path / "cut", 4, [KeepFirst(2, 3), checkpoint, StopAfter(stop_after)]).fit(
        Plain(), data_module(seeds_file, tiny_encoder, **options)
    )
    again = Plain()
    trainer_in(tmp_path / "cut", 4, [KeepFirst(2, 3)]).fit(
        again, data_module(seeds_file, tiny_encoder, **options), ckpt_path=tmp_path / f"cut/epoch={stop_after - 1}.ckpt"
    )
    for name in ("pool.jsonl", "rejected.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert [epoch for epoch, _ in again.asked] == ([2, 2] if stop_after <= 2 else [])
    for epoch in range(stop_after, 4):
        assert again.trained[epoch] == undisturbed.trained[epoch]
    assert torch.equal(again.weight, undisturbed.weight)


def test_alpha_stops_before_training_on_the_exhausted_outer_epoch(seeds_file, tiny_encoder, tmp_path):
    module = Plain()
    callbacks = [KeepFirst(3, 1, 4), AlphaStopping(0.5)]
    trainer_in(tmp_path, 3, callbacks).fit(module, data_module(seeds_file, tiny_encoder, outer_epochs=3))
    assert list(module.trained) == [0]
    assert sum(row["outer_epoch"] == 2 for row in lines(tmp_path / "pool.jsonl")) == 1, "kept and written out"
    assert not any(row["outer_epoch"] == 3 for row in lines(tmp_path / "pool.jsonl"))


def test_a_stopped_run_that_is_resumed_twice_stays_stopped(seeds_file, tiny_encoder, tmp_path):
    def run(ckpt_path=None):
        module = Plain()
        checkpoint = ModelCheckpoint(tmp_path, save_last=True, save_on_train_epoch_end=True)
        callbacks = [KeepFirst(3, 1, 4), AlphaStopping(0.5), checkpoint]
        data = data_module(seeds_file, tiny_encoder, outer_epochs=3)
        trainer_in(tmp_path, 3, callbacks).fit(module, data, ckpt_path=ckpt_path)
        return module, (tmp_path / "pool.jsonl").read_bytes()

    _, pool = run()
    for _ in range(2):
        module, again = run(tmp_path / "last.ckpt")
        assert (module.trained, module.asked, again) == ({}, [], pool)


def test_stopping_in_the_first_outer_epoch_trains_nothing_and_says_so(seeds_file, tiny_encoder, tmp_path):
    module = Plain()
    with pytest.warns(UserWarning, match="nothing was trained"):
        trainer_in(tmp_path, 2, [KeepFirst(0, 0), AlphaStopping(0.5)]).fit(
            module, data_module(seeds_file, tiny_encoder)
        )
    assert module.trained == {}


def test_the_same_seed_gives_the_same_pool_and_another_seed_another(seeds_file, tiny_encoder, tmp_path):
    pools = []
    for place, seed in enumerate((3, 3, 4)):
        torch.manual_seed(place)
        trainer_in(tmp_path / str(place), 2).fit(Plain(), data_module(seeds_file, tiny_encoder, seed=seed))
        pools.append((tmp_path / str(place) / "pool.jsonl").read_bytes())
    assert pools[0] == pools[1] != pools[2]


def test_the_trainer_must_reload_every_epoch(seeds_file, tiny_encoder, tmp_path):
    trainer = trainer_in(tmp_path, 2, reload_dataloaders_every_n_epochs=0)
    with pytest.raises(InputError, match="reload_dataloaders_every_n_epochs=1"):
        trainer.fit(Plain(), data_module(seeds_file, tiny_encoder))


@pytest.mark.parametrize("epochs", [1, 3, 5, None, -1])
def test_the_trainer_must_have_the_epochs_of_the_outer_epochs(seeds_file, tiny_encoder, tmp_path, epochs):
    data = data_module(seeds_file, tiny_encoder, epochs_per_outer_epoch=2)
    with pytest.raises(
        InputError, match=r"needs Trainer\(max_epochs=4\), found .*outer_epochs=2 with epochs_per_outer"
    ):
        trainer_in(tmp_path, epochs).fit(Plain(), data)
    assert not (tmp_path / "pool.jsonl").exists()


@pytest.mark.parametrize("least", [{"min_epochs": 2}, {"min_steps": 3}, {"min_epochs": 1, "min_steps": 5}])
def test_a_least_number_of_epochs_or_steps_which_no_stop_would_end_is_refused(
    seeds_file, tiny_encoder, tmp_path, least
):
    module = Plain()
    trainer = trainer_in(tmp_path, 2, [KeepFirst(0, 0), AlphaStopping(0.5)], **least)
    with pytest.raises(InputError, match=r"trainer\.min_epochs is .* and trainer\.min_steps .*Leave both out"):
        trainer.fit(module, data_module(seeds_file, tiny_encoder))
    assert module.trained == {}
    assert not (tmp_path / "pool.jsonl").exists()


def test_module_and_data_must_mean_the_same_by_an_outer_epoch(seeds_file, tiny_encoder, tmp_path):
    module = Plain()
    module.epochs_per_outer_epoch = 1
    data = data_module(seeds_file, tiny_encoder, epochs_per_outer_epoch=2)
    with pytest.raises(InputError, match=r"Plain has epochs_per_outer_epoch=1 and IsaraDataModule 2: .*Give both"):
        trainer_in(tmp_path, 4).fit(module, data)
    module.epochs_per_outer_epoch = 2
    trainer_in(tmp_path, 4).fit(module, data)
    assert list(module.trained) == [0, 1, 2, 3]


@pytest.mark.parametrize("candidates", [4, 0])
@pytest.mark.parametrize("checkpoints", [True, False])
def test_a_second_fit_in_a_folder_goes_on_from_a_checkpoint_or_is_refused(
    seeds_file, tiny_encoder, tmp_path, candidates, checkpoints
):
    options = {"candidates_per_outer_epoch": candidates, "outer_epochs": 1}
    module, data = Plain(), data_module(seeds_file, tiny_encoder, **options)

    def run(module, data, folder: str = "run", ckpt_path: Path | None = None) -> None:
        callbacks = [ModelCheckpoint(save_last=True, save_on_train_epoch_end=True)] if checkpoints else []
        trainer_in(tmp_path / folder, 1, callbacks).fit(module, data, ckpt_path=ckpt_path)

    run(module, data)
    left = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.jsonl")}
    weight = module.weight.clone()
    # with checkpoints, a script that is started again is noticed, too
    for again in (
        (module, data),
        *([(Plain(), data_module(seeds_file, tiny_encoder, **options))] if checkpoints else []),
    ):
        with pytest.raises(
            InputError, match=r"run holds a trained run already.*Give `fit` its ckpt_path, or the Train"
        ):
            run(*again)
    assert torch.equal(module.weight, weight)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.jsonl")} == left
    run(module, data, "other")
    if checkpoints:
        (last,) = (tmp_path / "run").rglob("last.ckpt")
        run(module, data, ckpt_path=last)


def test_what_ended_before_it_trained_may_be_begun_again(seeds_file, tiny_encoder, tmp_path):
    class Fails(Plain):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("killed")

    data = data_module(seeds_file, tiny_encoder)
    with pytest.raises(RuntimeError, match="killed"):
        trainer_in(tmp_path, 2).fit(Fails(), data)
    pool = (tmp_path / "pool.jsonl").read_text()
    trainer_in(tmp_path, 2).fit(Plain(), data)
    assert (tmp_path / "pool.jsonl").read_text().startswith(pool)


def test_a_module_that_cannot_generate_is_refused(seeds_file, tiny_encoder, tmp_path):
    class Mute(Plain):
        generate = None

    class WithoutSeeds(Plain):
        def generate(self, prompts, sampling):
            return []

    for module in (Mute(), WithoutSeeds()):
        with pytest.raises(InputError, match=r"has no generate\(prompts, sampling, seeds\), which the loop needs"):
            trainer_in(tmp_path, 2).fit(module, data_module(seeds_file, tiny_encoder))


def test_the_pretrained_writer_needs_a_module_that_can_switch(seeds_file, tiny_encoder, tmp_path):
    with pytest.raises(InputError, match=r"Plain has no method pretrained\(\)"):
        trainer_in(tmp_path, 2).fit(Plain(), data_module(seeds_file, tiny_encoder, question_writer="pretrained"))


def test_a_pool_that_lost_what_the_checkpoint_knew_is_refused(seeds_file, tiny_encoder, tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, save_last=True, save_on_train_epoch_end=True)
    trainer_in(tmp_path, 1, [checkpoint]).fit(Plain(), data_module(seeds_file, tiny_encoder, outer_epochs=1))
    whole = (tmp_path / "pool.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "pool.jsonl").write_text("".join(whole[:-1]))
    with pytest.raises(InputError, match=r"holds 11 entries, and held 12 then, when the checkpoint was written"):
        trainer_in(tmp_path, 2).fit(Plain(), data_module(seeds_file, tiny_encoder), ckpt_path=tmp_path / "last.ckpt")


@pytest.mark.parametrize("folder", ["run/lightning_logs/version_0/checkpoints", "elsewhere"])
def test_a_checkpoint_holds_seeds_alone_to_their_conditions_wherever_it_lies(
    seeds_file, tiny_encoder, tmp_path, folder
):
    def run(batch_size: int, ckpt_path: Path | None = None) -> None:
        checkpoint = ModelCheckpoint(tmp_path / folder, save_last=True, save_on_train_epoch_end=True)
        data = data_module(
            seeds_file, tiny_encoder, candidates_per_outer_epoch=0, outer_epochs=1, batch_size=batch_size
        )
        trainer_in(tmp_path / "run", 1, [checkpoint]).fit(Plain(), data, ckpt_path=ckpt_path)

    run(batch_size=3)
    with pytest.raises(InputError, match=r"data\.batch_size: 3 then, 2 now"):
        run(batch_size=2, ckpt_path=tmp_path / folder / "last.ckpt")


def test_fast_dev_run_leaves_no_files_and_grows_little(seeds_file, tiny_encoder, tmp_path):
    module = Plain()
    trainer_in(tmp_path / "run", 2, fast_dev_run=True).fit(
        module, data_module(seeds_file, tiny_encoder, candidates_per_outer_epoch=500)
    )
    assert not (tmp_path / "run").exists()
    assert len(module.fake.prompts) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates_per_outer_epoch": -1}, r"data\.candidates_per_outer_epoch is -1; allowed: at least 0"),
        ({"candidates_per_outer_epoch": 0}, r"data\.candidates_per_outer_epoch is 0.*data\.outer_epochs is 2"),
        ({"outer_epochs": 0}, r"data\.outer_epochs is 0"),
        ({"demonstrations": 0}, r"data\.demonstrations is 0"),
        ({"prompt_format": "chat"}, r"data\.prompt_format: chat needs data\.tokenizer"),
        ({"held_out": "nothing.jsonl"}, r"data\.held_out: no such file or folder: nothing\.jsonl"),
    ],
)
def test_bad_options_are_refused(seeds_file, tiny_encoder, options, message):
    with pytest.raises(InputError, match=message):
        data_module(seeds_file, tiny_encoder, **options)


def test_a_data_module_that_is_used_again_elsewhere_begins_anew(seeds_file, tiny_encoder, tmp_path):
    data = data_module(seeds_file, tiny_encoder)
    checkpoint = ModelCheckpoint(tmp_path / "a", save_last=True, save_on_train_epoch_end=True)
    trainer_in(tmp_path / "a", 2, [checkpoint, StopAfter(1)]).fit(Plain(), data)
    trainer_in(tmp_path / "a", 2).fit(Plain(), data, ckpt_path=tmp_path / "a/last.ckpt")
    assert data.trained_outer_epochs == 2
    checkpoint = ModelCheckpoint(tmp_path / "b", save_last=True, save_on_train_epoch_end=True)
    trainer_in(tmp_path / "b", 2, [checkpoint, StopAfter(1)]).fit(Plain(), data)
    assert data.trained_outer_epochs == 1
    state = torch.load(tmp_path / "b/last.ckpt", weights_only=True)["IsaraDataModule"]
    assert (state["pool"], state["trained_outer_epochs"]) == (12, 1)


SEVERAL_LINES = "".join(
    json.dumps(row) + "\n"
    for row in (
        {"question": "How is tea made?", "answer": "- Boil water.\n- Wait."},
        {"question": "How is bread made?", "answer": "Knead.\r\n\r\nBake."},
        {"instruction": "Add.", "input": "1 2", "output": "3\n"},
    )
)


@pytest.mark.parametrize("name", ["qa", "safe-rlhf"])
def test_line_breaks_that_become_spaces_are_counted(tmp_path, tiny_encoder, name):
    path = tmp_path / "lines.jsonl"
    path.write_text(SEVERAL_LINES)
    with pytest.warns(UserWarning, match="line breaks") as said:
        data_module(str(path), tiny_encoder, prompt_format=name)
    assert [str(warning.message) for warning in said] == [
        f"data.seeds: the answers of 2 and questions of 1 of 3 seeds have line breaks, which data.prompt_format {name} "
        "makes spaces: the model learns to answer in one line. data.prompt_format chat keeps them"
    ]


def test_chat_keeps_line_breaks_and_single_lines_need_no_word(tmp_path, seeds_file, tiny_encoder, tiny_llama):
    path = tmp_path / "lines.jsonl"
    path.write_text(SEVERAL_LINES)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*line breaks")
        data_module(str(path), tiny_encoder, prompt_format="chat", tokenizer=tiny_llama)
        data_module(seeds_file, tiny_encoder)


# -- files with other names


def test_columns_hold_for_every_file_of_the_data(tmp_path, tiny_encoder):
    def file(name: str, rows: list[list[str]]) -> str:
        (tmp_path / name).write_text("".join(";".join(row) + "\n" for row in rows), encoding="utf-8-sig")
        return str(tmp_path / name)

    data = IsaraDataModule(
        file("seeds.csv", [["Frage", "Antwort"], *([f"Warum {i}?", "So, so."] for i in range(5))]),
        held_out=file("held_out.tsv", [["question", "answer"], ["Who?", "Me."]]),  # has the usual names
        questions=file("questions.txt", [["Nr", "FRAGE"], ["1", "Wer, bitte?"]]),
        unlabelled_questions=file("own.csv", [["Frage"], ["Wann, und wo?"], ["Wie?"]]),
        distill_on="file",
        candidates_per_outer_epoch=2,
        outer_epochs=1,
        columns={"question": "Frage", "answer": "Antwort"},
        encoder=tiny_encoder,
    )
    assert [(seed.question, seed.answer) for seed in data.seeds] == [(f"Warum {i}?", "So, so.") for i in range(5)]
    assert [(item.question, item.answer) for item in data.held_out] == [("Who?", "Me.")]
    assert [item.question for item in data.questions] == ["Wer, bitte?"]
    assert {item.question for item in data.unlabelled} == {"Wann, und wo?", "Wie?"}


def test_columns_that_name_no_field_are_refused_before_anything_is_loaded(seeds_file):
    with pytest.raises(InputError, match=r"'qestion' is no field that is read\. Did you mean question\?"):
        IsaraDataModule(seeds_file, tokenizer="no/such-model", columns="qestion=Frage")
