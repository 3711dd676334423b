"""Filters beyond the words of questions: meaning, answers, repetition, judges, and what demonstrations support."""

import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import make_seeds
from helpers.evaluations import WordJudge
from helpers.outer_epoch import SETTINGS, NothingOdd, outer_epoch
from helpers.retrieval import CountingEncoder
from lightning.pytorch import LightningModule
from rouge_score.rouge_scorer import RougeScorer

from isara_pl import IsaraDataModule
from isara_pl.callbacks import DuplicateAnswer, JudgedHarmful, JudgedPoor, Repetitive, SemanticDuplicate, Unsupported
from isara_pl.errors import InputError
from isara_pl.growth.pool import SamplePool
from isara_pl.growth.prompts import prompt_format
from isara_pl.growth.samples import Sample
from isara_pl.growth.words import repeated_share, wording
from isara_pl.run.conditions import described


def pair(question: str = "Is this one new?", answer: str = "Yes, it is.", name: str = "1-00000", **more) -> Sample:
    return Sample(name, question, answer, int(name[0]), **more)


@pytest.fixture
def pool() -> SamplePool:
    return SamplePool(make_seeds())


# -- answers


def test_an_answer_like_one_of_the_pool_is_rejected_whatever_was_asked(pool):
    known = pool.samples[0].answer
    near = known.replace("light", "sound")
    figure = RougeScorer(["rougeL"]).score(near, known)["rougeL"].fmeasure
    assert 0.7 < figure < 1
    verdict = DuplicateAnswer().verdict(pair(answer=near), pool)
    assert (verdict.figure, verdict.reason) == (figure, "ROUGE-L above 0.7 with a known answer")
    assert DuplicateAnswer(figure).verdict(pair(answer=near), pool).reason is None  # exactly at it
    again = DuplicateAnswer(1.0).verdict(pair(answer=known.upper().replace(".", " !")), pool)
    assert (again.figure, again.reason) == (1.0, "answer is in the pool already")
    # the pool's questions are no answers
    assert DuplicateAnswer().verdict(pair(answer=pool.samples[0].question), pool).reason is None


def test_an_answer_that_was_accepted_a_moment_ago_is_known_and_forgotten_with_its_pool(pool):
    duplicate = DuplicateAnswer()
    candidate = pair(answer="Nobody has ever found that out.")
    assert duplicate.verdict(candidate, pool).reason is None
    pool.add(candidate)
    assert duplicate.verdict(candidate, pool).figure == 1.0
    assert duplicate.verdict(candidate, SamplePool(make_seeds())).reason is None


# -- repetition


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("The sky is the sky is the sky is the sky is blue.", 24 / 36),  # all but the first time, and "blue"
        ("no No, no; NO no no", 10 / 12),
        ("It is so. It is not so. It is neither.", 0.0),
        ("天空是蓝色的天空是蓝色的天空是蓝色的", 12 / 18),
        ("ท้องฟ้าเป็นสีฟ้า", 0.0),
        ("", 0.0),
        ("?!", 0.0),
    ],
)
def test_what_a_text_says_again_is_counted_by_letters_in_any_script(text, share):
    assert repeated_share(text, 5 if "sky" not in text else 3) == pytest.approx(share)


def test_the_share_of_repetition_is_that_of_a_plain_definition():
    draw = random.Random(0)
    for _ in range(300):
        text = " ".join(draw.choice(["a", "bb", "ccc"]) for _ in range(draw.randrange(25)))
        run, words = draw.randrange(1, 5), wording(text)
        # a word counts if any run that it stands in has begun before, anywhere further left
        again = [
            any(
                words[start : start + run] == words[earlier : earlier + run]
                for start in range(max(0, place - run + 1), min(place, len(words) - run) + 1)
                for earlier in range(start)
            )
            for place in range(len(words))
        ]
        letters = sum(len(word) for word, counts in zip(words, again, strict=True) if counts)
        assert repeated_share(text, run) == pytest.approx(letters / max(1, sum(map(len, words))))


def test_looping_text_is_rejected_in_question_and_answer(pool):
    looping = "the best way to learn is " * 4
    for candidate, part in ((pair(looping), "question"), (pair(answer=looping), "answer")):
        verdict = Repetitive().verdict(candidate, pool)
        assert (verdict.reason, verdict.figure) == (f"{part} repeats itself", pytest.approx(0.75))
    assert Repetitive(threshold=0.75).verdict(pair(looping), pool).reason is None  # exactly at it
    assert Repetitive(run=21).verdict(pair(looping), pool).figure == 0
    assert [Repetitive().verdict(sample, pool).reason for sample in pool.samples] == [None] * len(pool)


# -- meaning


def semantic(threshold: float = 0.9) -> SemanticDuplicate:
    one = SemanticDuplicate(threshold)
    one.encoder = CountingEncoder()
    return one


def highest_cosine(pool: SamplePool, question: str) -> float:
    encoder = CountingEncoder()
    return float((encoder.encode([s.question for s in pool.samples]) @ encoder.encode([question])[0]).max())


def test_the_figure_is_the_highest_cosine_with_a_question_of_the_pool(pool):
    pool.add(pair("Was this accepted before?"))
    pool.add(pair("And this one a moment ago?", name="2-00000"))
    for question in ("Is this one new?", "Or this?", "Who are you?"):
        figure = semantic(1.0).verdict(pair(question, name="2-00001"), pool).figure
        assert figure == pytest.approx(highest_cosine(pool, question), abs=1e-6)
        assert semantic(figure).verdict(pair(question, name="2-00001"), pool).reason is None  # exactly at it
        reason = semantic(figure - 1e-3).verdict(pair(question, name="2-00001"), pool).reason
        assert reason == f"cosine above {figure - 1e-3} with a known question"
    for known in pool.samples:
        assert semantic().verdict(pair(known.question, name="2-00001"), pool).figure == pytest.approx(1, abs=1e-6)


def test_meaning_follows_the_pool_and_every_question_is_embedded_once(pool):
    filter_, candidates = semantic(), [pair(f"Is it {n}?", name=f"1-0000{n}") for n in range(3)]
    figures = []
    for candidate in candidates:
        figures.append(filter_.verdict(candidate, pool).figure)
        pool.add(candidate)
    later = pair("Is it over?", name="2-00000")
    figures.append(filter_.verdict(later, pool).figure)
    asked = filter_.encoder.calls
    assert asked[0] == [s.question for s in make_seeds()]
    assert asked[1:4] == [[c.question] for c in candidates]
    assert asked[4:] == [[c.question for c in candidates], ["Is it over?"]], "an outer epoch that is over goes at once"
    # as a process that begins in the middle finds it
    pool_then = SamplePool([*make_seeds(), *candidates[:2]])
    assert semantic().verdict(candidates[2], pool_then).figure == figures[2]
    assert semantic().verdict(later, pool).figure == figures[3]
    # and another pool is another
    assert filter_.verdict(candidates[0], SamplePool(make_seeds())).figure == figures[0]


# -- judges


class RewardJudge(WordJudge):
    """Finds an answer as good as it is long."""

    labels = ("reward",)

    def __init__(self) -> None:
        super().__init__()
        self.moves, self.asked = [], []

    def to(self, device):
        self.moves.append(str(device))

    def scores(self, questions, answers):
        self.asked.append(list(answers))
        return torch.tensor([[float(len(answer))] for answer in answers])


class DigitJudge(RewardJudge):
    """Finds an answer as good as the sum of its digits."""

    def scores(self, questions, answers):
        super().scores(questions, answers)
        return torch.tensor([[float(sum(int(letter) for letter in answer if letter.isdigit()))] for answer in answers])


def test_harmful_is_the_highest_probability_of_any_category(pool):
    harmful, harmless = pair(answer="eee", name="1-00000"), pair(answer="No way.", name="1-00001")
    judged = JudgedHarmful(WordJudge(), 0.5)
    judged.on_candidates([harmful, harmless], pool)
    assert judged.verdict(harmful, pool).figure == 1.0
    assert judged.verdict(harmful, pool).reason == "probability of harm above 0.5"
    assert judged.verdict(harmless, pool).figure == pytest.approx(7 / 41)
    assert judged.verdict(harmless, pool).reason is None
    judged = JudgedHarmful(WordJudge(broken=True), 0.99)
    judged.on_candidates([harmless], pool)
    verdict = judged.verdict(harmless, pool)
    assert (verdict.figure, verdict.reason) == (0.0, "the judge gives no finite score")


@pytest.mark.parametrize(("lower", "rejected"), [(False, "short"), (True, "a longer one")])
def test_poor_is_a_reward_below_the_threshold_or_a_cost_above_it(pool, lower, rejected):
    candidates = [pair(answer=text, name=f"1-0000{n}") for n, text in enumerate(("short", "a longer one", "12345678"))]
    judged = JudgedPoor(RewardJudge(), 8.0, lower_is_better=lower)
    judged.on_candidates(candidates, pool)
    verdicts = {one.answer: judged.verdict(one, pool) for one in candidates}
    assert {answer for answer, verdict in verdicts.items() if verdict.reason} == {rejected}
    assert verdicts[rejected].reason == f"score {'above' if lower else 'below'} 8.0"
    assert [verdict.figure for verdict in verdicts.values()] == [5, 12, 8]


def test_a_judge_sees_every_batch_once_and_a_cut_one_whole_again(tmp_path):
    judge, pool = DigitJudge(), SamplePool(make_seeds(), tmp_path / "whole")
    growth = outer_epoch(pool, filters=[NothingOdd(), JudgedPoor(judge, 21.0)]).grow()
    assert [len(answers) for answers in judge.asked] == [4, 4, 2]
    assert judge.moves == ["cpu", "cpu"] * 3, "to the device, and back"
    assert growth.rejected["NothingOdd"] == 5
    assert growth.rejected["JudgedPoor"] + growth.accepted == 5
    assert 0 < growth.accepted < 5
    # a process that was killed after it wrote a part of the last batch
    cut = tmp_path / "cut"
    cut.mkdir()
    for name in ("pool.jsonl", "rejected.jsonl"):
        lines = (tmp_path / "whole" / name).read_text().splitlines(keepends=True)
        (cut / name).write_text("".join(line for line in lines if name == "rejected.jsonl" or '"1-00008"' not in line))
    assert (cut / "pool.jsonl").read_text() != (tmp_path / "whole/pool.jsonl").read_text()
    again = DigitJudge()
    outer_epoch(SamplePool(make_seeds(), cut), filters=[NothingOdd(), JudgedPoor(again, 21.0)]).grow()
    assert again.asked == judge.asked[2:], "those that were judged included: a batch's rounding is that of its rows"
    assert (cut / "pool.jsonl").read_bytes() == (tmp_path / "whole/pool.jsonl").read_bytes()


def test_what_has_no_room_for_an_answer_is_shown_to_no_judge(pool):
    judge = RewardJudge()
    fits = {"fits": lambda prompt, tokens: not prompt.endswith("\nAnswer:")}
    growth = outer_epoch(pool, filters=[JudgedPoor(judge, 0.0)], **fits).grow()
    assert growth.rejected == {"NoRoom": SETTINGS.candidates}
    assert judge.asked == []


# -- what demonstrations support


class Scoring(LightningModule):
    """Finds each word of an answer as likely as often it stands in the prompt; a word is a token."""

    tokenizer = SimpleNamespace(encode=str.split)

    def __init__(self, window: int | None = None) -> None:
        super().__init__()
        self.context_window = window
        self.prompts: list[str] = []

    def score(self, prompts, answers):
        self.prompts += prompts
        return [
            sum(math.log1p(prompt.split().count(word)) - 3 for word in answer.split())
            for prompt, answer in zip(prompts, answers, strict=True)
        ]


def unsupported(module: LightningModule, seeds_file: str, threshold: float = 0.0) -> Unsupported:
    one = Unsupported(threshold)
    data = IsaraDataModule(seeds_file, candidates_per_outer_epoch=1)
    one.setup(SimpleNamespace(datamodule=data, strategy=None), module, "fit")
    return one


def test_support_is_what_demonstrations_add_to_the_answers_log_probability_per_token(pool, seeds_file):
    shown = ("seed-00002", "seed-00001")
    plain = pair(answer="Because sea scatters light.", answer_demonstrations=shown)
    strange = pair(answer="Nobody knows", name="1-00001", answer_demonstrations=shown)
    alone = pair(answer="Because", name="1-00002")
    module = Scoring()
    judged = unsupported(module, seeds_file)
    judged.on_candidates([plain, strange, alone], pool)
    texts, by_id = prompt_format("qa", None), {sample.id: sample for sample in pool.samples}
    demonstrated = texts.answer_prompt(plain.question, [by_id[name] for name in shown])
    assert demonstrated.index("moon") < demonstrated.index("sea"), "in the order of the prompt that it was drawn from"
    assert module.prompts[:2] == [demonstrated, texts.answer_prompt(plain.question)]
    # Because, sea, scatters twice, once and twice; "light." nowhere
    assert judged.verdict(plain, pool).figure == pytest.approx((2 * math.log(3) + math.log(3)) / 4)
    assert judged.verdict(strange, pool).figure == 0
    assert judged.verdict(alone, pool).figure == 0, "there were no demonstrations"
    assert judged.verdict(strange, pool).reason is None, "exactly at the threshold"
    strict = unsupported(module, seeds_file, 0.1)
    strict.on_candidates([plain, strange], pool)
    assert strict.verdict(strange, pool).reason == "supported by less than 0.1 nats a token"
    assert strict.verdict(plain, pool).reason is None


def test_what_cannot_be_scored_ends_no_run(pool, seeds_file):
    module = Scoring(window=20)
    long = pair(answer="a b c", answer_demonstrations=("seed-00000", "seed-00001"))
    empty = pair(answer=" ", name="1-00001")
    judged = unsupported(module, seeds_file)
    judged.on_candidates([long, empty], pool)
    assert module.prompts == []
    assert [judged.verdict(one, pool).figure for one in (long, empty)] == [0, 0]
    module.score = lambda prompts, answers: [math.nan] * len(prompts)
    one = pair(answer="a")
    judged.on_candidates([one], pool)
    assert judged.verdict(one, pool).reason == "the model gives it no finite log-probability"


def test_a_module_that_cannot_be_asked_is_refused_before_anything_is_grown(seeds_file):
    with pytest.raises(InputError, match=r"Unsupported needs the log-probabilities of answers, and LightningModule"):
        unsupported(LightningModule(), seeds_file)
    data = IsaraDataModule(seeds_file, candidates_per_outer_epoch=1)
    trainer = SimpleNamespace(datamodule=data, strategy=SimpleNamespace(shards_model=True))
    with pytest.raises(InputError, match="Unsupported: the first process alone filters"):
        Unsupported().setup(trainer, Scoring(), "fit")


# -- options


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DuplicateAnswer(-0.1), r"DuplicateAnswer: threshold is -0\.1; allowed: 0 to 1"),
        (lambda: Repetitive(1.2), r"Repetitive: threshold is 1\.2; allowed: 0 to 1"),
        (lambda: Repetitive(run=0), "Repetitive: run is 0; allowed: at least 1"),
        (lambda: SemanticDuplicate(1.2), r"SemanticDuplicate: threshold is 1\.2; allowed: -1 to 1"),
        (lambda: JudgedHarmful(WordJudge(), 1.0), r"JudgedHarmful: threshold is 1\.0; allowed: above 0 and below 1"),
        (lambda: JudgedPoor(WordJudge(), 1.0), "JudgedPoor: WordJudge has the scores letter e, length; allowed: a si"),
    ],
)
def test_bad_options_are_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_their_options_are_conditions_of_a_run():
    filters = [SemanticDuplicate(0.8), DuplicateAnswer(), Repetitive(), JudgedPoor(RewardJudge(), 1.0), Unsupported()]
    assert described(filters) == [
        "SemanticDuplicate(threshold=0.8)",
        "DuplicateAnswer(threshold=0.7)",
        "Repetitive(threshold=0.15, run=5)",
        "JudgedPoor(judge=RewardJudge, threshold=1.0, lower_is_better=False)",
        "Unsupported(threshold=0.0)",
    ]
    assert filters[3].conditions_of(None) == {"judge of JudgedPoor": "RewardJudge"}


def test_numbers_are_those_that_a_file_can_hold(pool):
    filters = [semantic(), DuplicateAnswer(), Repetitive()]
    assert all(type(one.verdict(pair(), pool).figure) is float for one in filters)
    assert not np.issubdtype(type(filters[0].verdict(pair(), pool).figure), np.float32)
