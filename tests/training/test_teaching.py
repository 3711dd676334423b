"""Context distillation in a run: which samples are taught, by whom, from which demonstrations, and what is on disk."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import FakeGenerator, make_seeds
from helpers.command_line import fails
from helpers.datamodule import KeepFirst
from helpers.distillation import ALL, dense
from helpers.module import trainer_in
from helpers.teaching import Run
from lightning.pytorch import LightningModule
from safetensors.torch import load_file, save_file

from isara_pl.callbacks import AlphaStopping
from isara_pl.datamodule.datamodule import IsaraDataModule
from isara_pl.errors import InputError
from isara_pl.generation.distributions import TokenDistributions, TopLogprobs, top_logprobs
from isara_pl.module import IsaraModule
from isara_pl.training.pairs import encode_pair
from isara_pl.training.teacher_files import TeacherFiles


@pytest.fixture
def start(speaker, tiny_encoder, seeds_file, tmp_path):
    return lambda name="run", **options: Run(speaker, tiny_encoder, seeds_file, tmp_path / name, **options)


@pytest.fixture(scope="module")
def generated(speaker, tiny_encoder, tmp_path_factory):
    """A run of 2 outer epochs in which some answers have no end; not to be written into."""
    folder = tmp_path_factory.mktemp("generated")
    seeds = folder / "seeds.jsonl"
    seeds.write_text("".join(json.dumps({"question": s.question, "answer": s.answer}) + "\n" for s in make_seeds()))
    return Run(speaker, tiny_encoder, str(seeds), folder / "run", outer_epochs=2, seed=3)


def test_accepted_samples_are_taught_by_the_model_that_answered_from_its_demonstrations(generated):
    accepted = [sample for sample in generated.data.pool.samples if sample.outer_epoch]
    assert {sample.outer_epoch for sample in accepted} == {1, 2}
    assert sorted(generated.taught) == sorted(sample.id for sample in accepted)
    assert len({sample.answer_finished for sample in accepted}) == 2
    for sample in accepted:
        weights = generated.seen.weights[sample.outer_epoch - 1]
        generated.assert_taught(sample, weights, generated.demonstrations_of(sample))
    read_again = {prompt.count("Question:") for prompt in generated.seen.asked}
    assert read_again == {4}, "3 demonstrations and the question"
    assert 0 < len(generated.seen.asked) < len(accepted), "what was recorded is not computed twice"


def test_seeds_are_learned_as_they_stand_and_accepted_samples_from_the_teacher_alone(generated):
    for epoch in (0, 1):
        trained = generated.trained(epoch)
        assert {name: how for name, how in trained.items() if name.startswith("seed")} == {
            seed.id: (True, False) for seed in make_seeds()
        }
        others = {name: how for name, how in trained.items() if not name.startswith("seed")}
        assert others == {
            sample.id: (False, True) for sample in generated.data.pool.samples if 0 < sample.outer_epoch <= epoch + 1
        }


@pytest.mark.parametrize("demonstrations", [True, False])
def test_seeds_are_taught_from_the_nearest_other_seeds_or_as_a_control_from_none(start, demonstrations):
    options = {"distill_on": "seeds", "candidates_per_outer_epoch": 0, "teacher_demonstrations": demonstrations}
    run = start(**options)
    seeds = run.data.seeds
    assert run.trained(0) == {seed.id: (True, True) for seed in seeds}
    assert [path.name for path in (run.folder / "teacher").iterdir()] == ["seed-00000.safetensors"]
    assert run.seen.written == []
    differences = []
    for seed, prompt in zip(seeds, run.seen.asked, strict=True):
        assert prompt.count(seed.question) == 1, "its own question, once"
        assert seed.answer not in prompt
        shown = [other for other in seeds if other.question in prompt and other != seed]
        assert len(shown) == (3 if demonstrations else 0)
        shown.sort(key=lambda other, prompt=prompt: prompt.index(other.question))
        if demonstrations:
            nearest = run.data.index.nearest([seed.question], 4, up_to=0)[0]
            assert shown == [other for other in nearest if other.id != seed.id][:3][::-1], "the nearest last"
        run.assert_taught(seed, run.seen.weights[0], shown)
        differences.append(_difference(run, seed))
    # a control has nothing to teach but the end: it is the student itself
    assert (max(differences) < 1e-5) is not demonstrations


def _difference(run: Run, sample) -> float:
    """Give the largest difference of a probability between teacher and student as it began, ends taken together."""
    tokenizer = run.module.tokenizer
    pair = encode_pair(sample, run.data.prompt_format, tokenizer, 256, end=True)
    with torch.no_grad():
        logits = run.module.adapted(input_ids=torch.tensor([pair.input_ids])).logits[0, pair.prompt_length - 1 : -1]
    stops = run.module._engine.stop_ids(run.data.lessons.sampling)
    student = top_logprobs(logits[1:], stops, TopLogprobs(ALL, tokenizer.eos_token_id))
    kept = run.taught[sample.id]
    vocabulary = logits.shape[1]
    return float((dense(student, vocabulary) - dense(kept, vocabulary)[1:]).abs().max())


def test_given_questions_are_each_answered_once_and_a_pretrained_teacher_stays_what_it_was(start, tmp_path):
    questions = [f"Where does number {number} come from?" for number in range(12)]
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps({"question": question}) + "\n" for question in questions))
    run = start(distill_on="file", unlabelled_questions=str(file), teacher="pretrained", outer_epochs=2)
    lines = [json.loads(line) for name in ("pool.jsonl", "rejected.jsonl") for line in (run.folder / name).open()]
    asked = {line["id"]: line["question"] for line in lines if line["outer_epoch"]}
    in_order = [asked[name] for name in sorted(asked)]
    assert len(in_order) == len(set(in_order)) == 10
    assert set(in_order) < set(questions)
    assert in_order != sorted(in_order, key=questions.index), "in random order"
    assert not any(line["question_demonstrations"] for line in lines if line["outer_epoch"])
    assert all(prompt.endswith("Answer:") for prompt in run.seen.written), "no question is written"
    newest = run.data.pool.accepted(2)
    for sample in newest:
        run.assert_taught(sample, run.module._fresh_adapter, run.demonstrations_of(sample))
    assert newest
    assert len(run.seen.asked) == len(run.taught)


def test_a_fit_that_alpha_stops_leaves_untaught_what_nobody_trains_on(start):
    run = start(outer_epochs=2, callbacks=[KeepFirst(4, 1), AlphaStopping(0.5)], objective="sft+distill")
    assert len(run.data.pool.accepted(2)) == 1
    assert [len(batches) > 0 for batches in run.seen.batches] == [True, False]
    assert set(run.trained(0).values()) == {(True, False), (True, True)}


# -- on disk


def test_a_resume_refuses_what_is_damaged_or_lost_and_takes_up_the_rest(generated, start, tmp_path):
    def resumed(name, change):
        folder = tmp_path / name
        shutil.copytree(generated.folder, folder)
        change(folder / "teacher")
        return Run(
            generated.module.name, generated.data.encoder_name, str(generated.folder.parent / "seeds.jsonl"), folder,
            ckpt_path=folder / "epoch=0.ckpt", outer_epochs=2, seed=3,
        )  # fmt: skip

    def tear(teacher: Path) -> None:
        file = sorted(teacher.iterdir())[0]
        file.write_bytes(file.read_bytes()[:-7])

    with pytest.raises(InputError, match=r"teacher.1-0000\d\.safetensors: damaged \(.*\)\. Restore the file"):
        resumed("torn", tear)
    with pytest.raises(InputError, match=r"1-0000\d, …\) are missing, which were there when the checkpoint"):
        resumed("lost", lambda teacher: sorted(teacher.iterdir())[0].unlink())
    files = {path.name: path.read_bytes() for path in (generated.folder / "teacher").iterdir()}

    def of_the_second_outer_epoch(teacher: Path) -> None:
        for path in teacher.glob("2-*"):
            path.unlink()

    again = resumed("again", of_the_second_outer_epoch)
    assert {path.name for path in (again.folder / "teacher").iterdir()} == {
        *(name for name in files if name.startswith("1-")),
        "2-00000.safetensors",
    }, "asked in one go, since the pool has the samples already"
    assert again.taught.keys() == generated.taught.keys()


def test_what_a_killed_start_left_is_not_believed(start, tmp_path):
    left = TokenDistributions(torch.zeros(9, 2, dtype=torch.int32), torch.zeros(9, 2), torch.zeros(9))
    files = TeacherFiles(tmp_path / "run", [])
    for name in ("seed-00003", "1-00001"):
        files.add({name: left})
    run = start(distill_on="seeds", candidates_per_outer_epoch=0)
    assert [path.name for path in (run.folder / "teacher").iterdir()] == ["seed-00000.safetensors"]
    assert len(run.seen.asked) == 8


def test_files_give_back_what_they_were_given_and_refuse_what_does_not_fit(tmp_path):
    kept = [top_logprobs(torch.randn(rows, 9), [], TopLogprobs(4, 0)) for rows in (3, 1, 5)]
    files = TeacherFiles(tmp_path, [])
    files.add({"1-00000": kept[0], "1-00002": kept[1]})
    files.add({"1-00004": kept[2]})
    found = TeacherFiles(tmp_path, ["1-00000", "1-00002", "1-00004"]).known
    for one, name in zip(kept, ("1-00000", "1-00002", "1-00004"), strict=True):
        assert all(torch.equal(getattr(one, part), getattr(found[name], part)) for part in ("ids", "log_probs", "rest"))
    with pytest.raises(InputError, match=r"data\.top_logprobs: .* hold other numbers of tokens, 4 and 5\."):
        files.add({"2-00000": top_logprobs(torch.randn(2, 9), [], TopLogprobs(5, 0))})
    path = tmp_path / "teacher/1-00000.safetensors"
    good = load_file(path)
    for metadata, change in (
        ({"samples": '{"1-00000": 3}'}, {}),
        ({"samples": '{"1-00000": -1, "1-00002": 5}'}, {}),
        ({"samples": '{"1-00000": "4"}'}, {}),
        ({"samples": "[4]"}, {}),
        ({"samples": "[" * 100_000}, {}),
        ({}, {}),
        ({"samples": '{"1-00000": 4}'}, {"ids": good["ids"].long()}),
        ({"samples": '{"1-00000": 4}'}, {"ids": good["ids"][:3], "log_probs": good["log_probs"][:3]}),
        ({"samples": '{"1-00000": 4}'}, {"rest": good["rest"].double()}),
    ):
        save_file({**good, **change}, path, metadata)
        with pytest.raises(InputError, match=r"1-00000\.safetensors: damaged"):
            TeacherFiles(tmp_path, ["1-00000"])


# -- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"objective": "distill", "tokenizer": None},
            "model.objective is distill, which needs tokens: give data.token",
        ),
        ({"candidates_per_outer_epoch": 0}, "distill_on generated, but data.candidates_per_outer_epoch is 0"),
        ({"distill_on": "file"}, r"belong together: give both.*\(distill_on is file, unlabelled_questions null\)"),
        (
            {"unlabelled_questions": "{questions}"},
            r"belong together.*\(distill_on is generated, unlabelled_questions /",
        ),
        (
            {"distill_on": "file", "unlabelled_questions": "{questions}", "outer_epochs": 3},
            "questions.jsonl: 4 questions, but .* times data.outer_epochs takes 6, each once",
        ),
        (
            {"distill_on": "file", "unlabelled_questions": "{questions}", "held_out": "{held_out}"},
            r"data\.held_out: 1 of its items .* unlabelled-0000\d = held-out-00001",
        ),
        ({"top_logprobs": 0}, r"data\.top_logprobs is 0; allowed: at least 1"),
    ],
)
def test_what_cannot_be_distilled_is_refused(tiny_llama, seeds_file, held_out_file, tmp_path, options, message):
    questions = tmp_path / "questions.jsonl"
    rows = ["What colour is thing number 1?", *(f"Is it {number}?" for number in range(3))]
    questions.write_text("".join(json.dumps({"question": question}) + "\n" for question in rows))
    files = {"{questions}": str(questions), "{held_out}": held_out_file}
    given = {name: files.get(str(value), value) for name, value in options.items()}
    default = {"tokenizer": tiny_llama, "candidates_per_outer_epoch": 2, "outer_epochs": 1, "objective": "distill"}
    with pytest.raises(InputError, match=message):
        IsaraDataModule(seeds_file, **{**default, **given})


@pytest.mark.parametrize(
    ("options", "lacking", "message"),
    [
        ({}, "distributions", r"Mute has no distributions\(prompts, answers, sampling, top\)"),
        ({}, "top", r"Mute has no generate\(prompts, sampling, seeds, top\)"),
        ({"teacher": "pretrained"}, "pretrained", r"data.teacher is pretrained, but Mute has no method pretrained"),
    ],
)
def test_a_module_that_cannot_teach_is_refused_before_it_generates(
    tiny_llama, tiny_encoder, seeds_file, tmp_path, options, lacking, message
):
    class Mute(LightningModule):
        def __init__(self):
            super().__init__()
            self.fake = FakeGenerator()
            self.generate = self.fake.generate if lacking == "top" else self.keeping
            if lacking != "distributions":
                self.distributions = lambda *_: []

        def keeping(self, prompts, sampling, seeds, top=None):
            return self.fake.generate(prompts, sampling, seeds)

        def training_step(self, batch, batch_idx):
            raise AssertionError("it cannot be taught")

        def configure_optimizers(self):
            return None

    module = Mute()
    data = IsaraDataModule(seeds_file, tokenizer=tiny_llama, encoder=tiny_encoder, objective="distill", **options)
    with pytest.raises(InputError, match=message):
        trainer_in(tmp_path, max_epochs=4).fit(module, data)
    assert module.fake.prompts == []


def test_the_datas_objective_follows_from_the_models(options, capsys, tmp_path):
    error = fails(["fit", *options, f"--run_dir={tmp_path / 'run'}", "--data.objective=distill"], capsys)
    assert "data.objective" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("of_model", "of_data"), [("distill", "sft"), ("sft", "distill")])
def test_a_model_and_data_of_other_objectives_are_refused(tiny_llama, seeds_file, tmp_path, of_model, of_data):
    data = IsaraDataModule(seeds_file, tokenizer=tiny_llama, candidates_per_outer_epoch=2, objective=of_data)
    with pytest.raises(InputError, match=f"model.objective is {of_model}, but data.objective (is )?{of_data}"):
        trainer_in(tmp_path, max_epochs=4).fit(IsaraModule(tiny_llama, objective=of_model), data)
