"""What the teacher reads: demonstrations that fit and that do not give the answer away, and how an answer ends."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import make_seeds
from helpers.distillation import ALL, dense, plain
from helpers.outer_epoch import plan
from helpers.teaching import SHORT, Run
from transformers import AutoTokenizer

from isara_pl.datamodule.teaching import Distillation, Lessons
from isara_pl.generation.distributions import TopLogprobs, top_logprobs
from isara_pl.generation.protocol import Completion
from isara_pl.growth.outer_epoch import Answered
from isara_pl.growth.prompts import prompt_format
from isara_pl.growth.samples import Sample
from isara_pl.growth.words import wording
from isara_pl.models.loading import load_tokenizer
from isara_pl.training.pairs import PairEncoder, encode_pair
from isara_pl.training.teacher_files import TeacherFiles

ON_SEEDS = {"distill_on": "seeds", "candidates_per_outer_epoch": 0}
# answers follow a space, so that what the tiny model writes is encoded again as it was written
SPACED_TEMPLATE = (
    "{% for message in messages %}{{ '<|turn|>' + message['role'] + ': ' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|turn|>assistant:' }}{% endif %}"
)


def changed(file: Path, **values) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def file_of(seeds: list[Sample], path: Path) -> str:
    path.write_text("".join(json.dumps({"question": seed.question, "answer": seed.answer}) + "\n" for seed in seeds))
    return str(path)


# -- ends


def test_in_a_chat_the_end_of_a_turn_takes_the_mass_of_all_ends(speaker, tiny_encoder, seeds_file, tmp_path):
    model = shutil.copytree(speaker, tmp_path / "chat")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.eos_token, tokenizer.chat_template = "<|pad|>", SPACED_TEMPLATE  # a turn ends with <|end|>
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>", "<|turn|>"]})
    tokenizer.save_pretrained(model)
    run = Run(str(model), tiny_encoder, seeds_file, tmp_path / "run", prompt_format="chat")
    accepted = run.data.pool.accepted(1)
    assert run.module._engine.stop_ids(SHORT) == [0, 1]
    assert 0 < len(run.seen.asked) < len(accepted), "some are recorded, the others asked"
    for sample in accepted:
        run.assert_taught(sample, run.seen.weights[0], run.demonstrations_of(sample))
    last = torch.stack([dense(kept, 400)[-1] for kept in run.taught.values()])
    assert (last[:, 0] > 0.01).any()
    assert (last[:, 1] == 0).all()


def test_an_answer_that_is_cut_is_taught_up_to_where_it_is_cut(speaker, tiny_encoder, seeds_file, tmp_path):
    tokenizer, qa = load_tokenizer(speaker), prompt_format("qa", None)
    whole = {seed.id: encode_pair(seed, qa, tokenizer, 256, end=True) for seed in make_seeds()}
    longest = max(pair.prompt_length for pair in whole.values()) + 3
    run = Run(speaker, tiny_encoder, seeds_file, tmp_path, max_length=longest, teacher_demonstrations=False, **ON_SEEDS)
    run.module.load_state_dict(run.seen.weights[0])
    for seed in run.data.seeds:
        ids, begin = whole[seed.id].input_ids, whole[seed.id].prompt_length
        assert len(ids) > longest
        stops = run.module._engine.stop_ids(run.data.lessons.sampling)
        exact = plain(run.module.adapted.eval(), ids[:begin], ids[begin:-1], stops, tokenizer.eos_token_id)
        kept = run.taught[seed.id]
        assert len(kept) == longest - begin, "one for each label; the last foretells a word, and no end"
        torch.testing.assert_close(dense(kept, exact.shape[1]), exact[: len(kept)], rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize(
    ("cut", "finished", "other", "recorded"),
    [(0, True, 0, True), (1, True, 0, False), (0, False, 0, False), (0, True, 1, False)],
    ids=["the very labels", "cut", "without an end", "another token"],
)
def test_what_was_recorded_is_kept_where_it_is_of_the_very_labels(speaker, cut, finished, other, recorded):
    tokenizer, qa, sample = load_tokenizer(speaker), prompt_format("qa", None), make_seeds(1)[0]
    pair = encode_pair(sample, qa, tokenizer, 256, end=True)
    answer = pair.input_ids[pair.prompt_length : -1]
    files, distillation = TeacherFiles(None, []), Distillation("distill", "generated", "current", True, ALL)
    lessons = Lessons(distillation, files, PairEncoder(qa, tokenizer, len(pair.input_ids) - cut), plan())
    kept = top_logprobs(torch.randn(len(answer) + finished, 9), [], TopLogprobs(ALL, 0))
    completion = Completion(sample.answer, finished, (answer[0] + other, *answer[1:]), kept)
    lessons.keep([Answered(sample, completion)])
    assert list(files.known) == [sample.id] * recorded


# -- demonstrations


def test_a_short_window_takes_the_farthest_demonstrations_away(speaker, tiny_encoder, tmp_path):
    model = shutil.copytree(speaker, tmp_path / "short")
    window = 205  # 3 demonstrations of about 60 tokens are too many beside the longer of the answers
    changed(model / "config.json", max_position_embeddings=window)
    seeds = [replace(seed, answer=f"{seed.answer} {place * 'So it is. '}") for place, seed in enumerate(make_seeds())]
    run = Run(str(model), tiny_encoder, file_of(seeds, tmp_path / "seeds.jsonl"), tmp_path / "run", **ON_SEEDS)
    tokenizer, qa, counts = run.module.tokenizer, run.data.prompt_format, []
    assert run.module.context_window == window
    for seed, prompt in zip(run.data.seeds, run.seen.asked, strict=True):
        nearest = [other for other in run.data.index.nearest([seed.question], 4)[0] if other.id != seed.id][:3]
        counts.append(prompt.count("Question:") - 1)
        assert prompt == qa.answer_prompt(seed.question, nearest[: counts[-1]][::-1])
        pair = encode_pair(seed, qa, tokenizer, window, end=True)
        answer = len(pair.input_ids) - pair.prompt_length - 1
        more = qa.answer_prompt(seed.question, nearest[: counts[-1] + 1][::-1])
        assert len(tokenizer(prompt).input_ids) + answer <= window
        assert counts[-1] == 3 or len(tokenizer(more).input_ids) + answer > window
        run.assert_taught(seed, run.seen.weights[0], nearest[: counts[-1]][::-1])
    assert len(set(counts)) > 1
    assert min(counts) < 3


def test_seeds_that_ask_the_same_are_not_shown_for_each_other(speaker, tiny_encoder, tmp_path):
    seeds = make_seeds()
    spelt = ("WHY is the sky like that, on day number 0?", "why is the SKY like that on day number 0")
    seeds += [Sample(f"seed-{8 + n:05d}", question, f"For reason {n}.") for n, question in enumerate(spelt)]
    run = Run(speaker, tiny_encoder, file_of(seeds, tmp_path / "seeds.jsonl"), tmp_path / "run", **ON_SEEDS)
    for seed, prompt in zip(run.data.seeds, run.seen.asked, strict=True):
        shown = [other for other in seeds if other.answer in prompt]
        assert len(shown) == 3
        assert wording(seed.question) not in {wording(other.question) for other in shown}
