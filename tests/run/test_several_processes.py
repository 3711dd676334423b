"""Growing, training and measuring on two processes: real ones, and threads for what only the growth does."""

import math
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from conftest import FakeGenerator, make_seeds
from helpers.outer_epoch import SETTINGS, NothingOdd, outer_epoch
from helpers.several_processes import GREEDY, FakeTrainer, assert_like, on_two, table
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy

from isara_pl.cli.main import main
from isara_pl.datamodule.checks import check_processes
from isara_pl.errors import InputError
from isara_pl.generation.distributions import TopLogprobs, top_logprobs
from isara_pl.growth.pool import SamplePool
from isara_pl.growth.prompts import prompt_format
from isara_pl.models.loading import load_tokenizer
from isara_pl.module import IsaraModule
from isara_pl.run.trainer import Processes
from isara_pl.training.loaders import held_out_loader, question_loader, text_loader, training_loader
from isara_pl.training.pairs import PairEncoder, collate, encode_pair

# what a user's callback may do: here it dies, in the process and at the place that the environment names
FATAL = """
import os, signal, time
from lightning.pytorch import Callback

RANK, PLACE = os.environ["FATAL"].split(":")

class Fatal(Callback):
    def setup(self, trainer, pl_module, stage):
        own = pl_module.generate
        def generate(prompts, sampling, seeds, *more):
            if PLACE == "generate" and stage == "fit" and trainer.current_epoch == 2:
                if trainer.global_rank == int(RANK):
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(1000)
            return own(prompts, sampling, seeds, *more)
        pl_module.generate = generate

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if PLACE == "train" and trainer.global_rank == int(RANK):
            raise RuntimeError("this callback is broken")
"""


@pytest.fixture
def arguments(options, pairs_file, speaker):
    """Arguments of a fit with a teacher and all that is measured; 7 candidates in batches of 4: uneven shares."""
    return [
        "fit",
        *options,
        *GREEDY,
        f"--model.name={speaker}",
        "--model.objective=distill",
        "--data.validation_share=0.25",
        "--trainer.callbacks+=isara_pl.callbacks.BestEpoch",
        "--trainer.callbacks+=isara_pl.callbacks.ContaminationGuard",
        "--trainer.callbacks.ngram=3",
        "--trainer.callbacks+=isara_pl.callbacks.HarmPreferenceEvaluation",
        f"--trainer.callbacks.pairs={pairs_file}",
        "--trainer.callbacks.demonstrations=2",
        "--trainer.callbacks.context=random",
        "--trainer.callbacks+=isara_pl.callbacks.DiversityMonitor",
    ]


def test_two_processes_give_the_pool_the_figures_and_the_adapter_of_one(arguments, tmp_path):
    main([*arguments, f"--run_dir={tmp_path / 'one'}"])
    done = on_two(arguments, tmp_path / "two")
    assert done.returncode == 0, done.stdout
    assert "Warning" not in done.stdout.replace("UserWarning: outer epoch", "")
    assert done.stdout.count("is best in validation NLL") == 2, "chosen in each outer epoch, and told by one process"
    assert "outer epoch 2: epoch 1 of 2 is best" in done.stdout, "and gone back to"
    assert_like(tmp_path / "two", tmp_path / "one")
    assert len([*(tmp_path / "one/teacher").iterdir()]) == 3, "recorded in both outer epochs, and asked in one"
    assert not all(math.isnan(row["answer_nll"]) for row in table(tmp_path / "two"))


@pytest.mark.slow
def test_a_killed_first_process_takes_the_other_with_it_and_the_run_goes_on_where_it_was(arguments, tmp_path):
    (tmp_path / "fatal.py").write_text(FATAL)
    fatal = {"PYTHONPATH": str(tmp_path), "FATAL": "0:generate"}
    killed = on_two(arguments, tmp_path / "two", "--trainer.callbacks+=fatal.Fatal", **fatal)
    assert killed.returncode == -9
    assert "process 1: ends, since the process that started it is gone" in killed.stdout
    with (tmp_path / "two/pool.jsonl").open("a") as file:
        file.write('{"id": "2-00')  # as if killed while writing
    done = on_two(arguments, tmp_path / "two", "--ckpt_path=last")
    assert done.returncode == 0, done.stdout
    main([*arguments, f"--run_dir={tmp_path / 'one'}"])
    assert_like(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_an_error_in_one_process_ends_both_and_is_on_the_screen(arguments, tmp_path):
    (tmp_path / "fatal.py").write_text(FATAL)
    fatal = {"PYTHONPATH": str(tmp_path), "FATAL": "1:train"}
    done = on_two(arguments, tmp_path / "two", "--trainer.callbacks+=fatal.Fatal", **fatal)
    assert done.returncode not in (0, None)
    assert "this callback is broken" in done.stdout


# -- growth


class Together(Processes):
    """Processes that are threads."""

    def meet(self, thing):
        board.setdefault(self.rank, []).append(thing)
        barrier.wait(timeout=10)
        place = len(board[self.rank]) - 1
        return [board[rank][place] for rank in range(self.count)]

    def gathered(self, part):
        return [item for part in self.meet(part()) for item in part]

    def from_first(self, make):
        return self.meet(make() if self.is_first else None)[0]


barrier = threading.Barrier(3)
board: dict[int, list] = {}


def test_candidates_are_generated_in_shares_and_filtered_by_the_first_process_alone(tmp_path):
    alone = SamplePool(make_seeds(), tmp_path / "alone")
    # every context of 3 is too long: shortened ones are counted over all
    short = {"fits": lambda prompt, tokens: prompt.count("Question:") < 4}
    growth_alone = outer_epoch(alone, filters=[NothingOdd()], **short).grow()
    pools = [SamplePool(make_seeds(), tmp_path / "together" if rank == 0 else None) for rank in range(3)]
    generators = [FakeGenerator() for _ in range(3)]
    growths, asked = {}, Counter()

    class Asked(NothingOdd):
        def __init__(self, rank):
            self.rank = rank

        def verdict(self, candidate, pool):
            asked[self.rank] += 1
            return super().verdict(candidate, pool)

    Asked.__name__ = "NothingOdd"

    def work(rank):
        processes = Together(rank, 3)
        growth = outer_epoch(
            pools[rank], generator=generators[rank], filters=[Asked(rank)], processes=processes, **short
        )
        growths[rank] = growth.grow()

    board.clear()
    with ThreadPoolExecutor() as threads:
        list(threads.map(work, range(3)))
    assert asked == {0: SETTINGS.candidates}
    assert [len(generator.prompts) for generator in generators] == [10, 6, 4]  # of batches of 4, 4 and 2
    for pool in pools:
        assert pool.samples == alone.samples
        assert pool.known() == alone.known()
    for name in ("pool.jsonl", "rejected.jsonl"):
        assert (tmp_path / "together" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert growth_alone.shortened > 0
    for growth in growths.values():
        assert (growth.accepted, growth.rejected, growth.shortened) == (
            growth_alone.accepted,
            growth_alone.rejected,
            growth_alone.shortened,
        )


# -- loaders


def shares(make):
    """Give the batches of 3 processes, batch by batch."""
    return list(zip(*(make(Processes(rank, 3)) for rank in range(3)), strict=True))


def test_every_pair_is_trained_on_and_measured_once_and_each_process_has_as_many_batches(tiny_llama):
    encoder = PairEncoder(prompt_format("qa", None), load_tokenizer(tiny_llama), 256)
    samples = make_seeds(9)  # batches of 4, 4 and 1: two processes are left over
    pairs, pad = [encoder(sample) for sample in samples], encoder.pad_token_id
    loaders = {
        "training": lambda processes: training_loader(pairs, 4, 0, 0, processes, pad),
        "held out": lambda processes: held_out_loader(pairs, 4, processes, pad),
    }
    for name, make in loaders.items():
        batches = shares(make)
        assert len(batches) == 3, name
        ids = [
            sample_id
            for parts in batches
            for part in parts
            for sample_id, labels in zip(part["sample_ids"], part["labels"], strict=True)
            if (labels != -100).any()
        ]
        assert sorted(ids) == [sample.id for sample in samples], name
        assert min(len(part["sample_ids"]) for parts in batches for part in parts) == 1, name


def test_batches_of_texts_repeat_a_sample_where_processes_are_left_over_and_questions_do_not():
    qa, samples = prompt_format("qa", None), make_seeds(9)
    batches = shares(lambda processes: text_loader(samples, qa, 4, 0, processes))
    counts = Counter(name for parts in batches for part in parts for name in part["id"])
    assert sorted(counts.values()) == [1] * 8 + [3]
    batches = shares(lambda processes: question_loader(samples, qa, 4, processes))
    asked = [name for parts in batches for part in parts for name in part["id"]]
    assert asked == [sample.id for sample in samples]


# -- the training step


def test_the_mean_of_the_processes_gradients_is_that_of_all_tokens(tiny_llama):
    module = IsaraModule(tiny_llama)
    module.configure_model()
    logged = []
    module.log = lambda name, value, **_: logged.append(float(value))
    qa, samples = prompt_format("qa", None), make_seeds(4)
    pairs = [encode_pair(sample, qa, module.tokenizer, 256, end=True) for sample in samples]

    def taught(pair):
        teacher = torch.randn(len(pair.input_ids) - pair.prompt_length, 50)
        kept = top_logprobs(teacher, [], TopLogprobs(9, end_id=0))
        return replace(pair, distributions=kept, learned=pair is pairs[0])

    loader = training_loader([taught(pair) for pair in pairs], 4, 0, 0, Processes(), module.tokenizer.pad_token_id)
    *of_teacher, without_loss = loader.dataset
    pairs[0], pairs[3] = of_teacher[0], of_teacher[3]  # each part that has loss has one that is taught

    def gradient(chosen, trainer):
        module.zero_grad()
        module._trainer = trainer
        module.training_step(collate(chosen, 1), 0).backward()
        return torch.cat([p.grad.flatten() for p in module.parameters() if p.requires_grad])

    alone = FakeTrainer(1)
    whole = gradient(pairs, alone)
    of_all = alone.reduced[0]
    parts = [pairs[:3], pairs[3:], [without_loss]]
    mean = sum(gradient(part, FakeTrainer(3, of_all)) for part in parts) / 3
    torch.testing.assert_close(mean, whole)
    assert logged == [pytest.approx(logged[0])] * 4


# -- what is refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strategy": ModelParallelStrategy()}, "ModelParallelStrategy with 2 processes. Allowed: ddp"),
        ({"strategy": "ddp_spawn"}, "not ddp_spawn"),
        ({"strategy": "ddp", "use_distributed_sampler": True}, "use_distributed_sampler=False"),
        ({"strategy": "ddp"}, "data.batch_size is 1, .* of which there are 2"),
    ],
)
def test_several_processes_that_could_not_split_the_work_are_refused(options, said):
    trainer = Trainer(**{"accelerator": "cpu", "devices": 2, "use_distributed_sampler": False, **options})
    with pytest.raises(InputError, match=said):
        check_processes(trainer, batch_size=1)
