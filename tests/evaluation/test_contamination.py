import random

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from isara_pl.errors import InputError
from isara_pl.evaluation.contamination import Contact, ContaminationIndex, overlapping
from isara_pl.growth.samples import Sample

ITEMS = [
    Sample(
        "item-0",
        "Why is the sky blue on a clear day?",
        "Air scatters blue light.",
        correct_answers=("Air scatters blue light.", "Because the air of the earth scatters blue light more than red."),
        incorrect_answers=("Because it mirrors the blue water of all the seas below it.",),
    ),
    Sample("item-1", "Do goldfish forget everything after three seconds?", "No."),
    Sample("item-2", "金鱼会忘记一切吗？", "不会。"),
]


class FakeEncoder:
    """Gives the rows that a test names, and a row of its own, orthogonal to all, to every other text."""

    def __init__(self, rows):
        self.rows = rows
        self.others = []
        self.calls = 0

    def encode(self, texts):
        self.calls += 1
        embeddings = np.zeros((len(texts), 64), dtype=np.float32)
        for row, text in zip(embeddings, texts, strict=True):
            if text in self.rows:
                row[: len(self.rows[text])] = self.rows[text]
            else:
                self.others.append(text)
                row[8 + self.others.index(text)] = 1
        return embeddings


def found(sample, encoder=None, **options):
    return ContaminationIndex(ITEMS, encoder, **options).contacts([sample])


@pytest.mark.parametrize(
    "text",
    [
        "They say it mirrors the blue water of all the seas, which is wrong.",  # of an incorrect answer
        "So: the AIR of the Earth scatters blue light... or not?",  # of a correct answer
        "Tell me, why is the sky blue on a clear night?",  # of the question
    ],
)
@pytest.mark.parametrize("side", ["question", "answer"])
def test_a_run_of_tokens_of_any_text_is_a_contact(text, side):
    other = "Some quite different words stand here."
    sample = Sample("1-00000", text, other) if side == "question" else Sample("1-00000", other, text)
    contacts = found(sample, ngram=7)
    assert [(contact.sample_id, contact.item_id, contact.kind) for contact in contacts] == [
        ("1-00000", "item-0", "ngram")
    ]


def test_the_figure_counts_distinct_shared_runs():
    # 10 shared tokens in a row hold 3 runs of 8; said twice they are still 3
    sentence = "it mirrors the blue water of all the seas below."
    (contact,) = found(Sample("s", "And?", f"{sentence} Yes: {sentence}"))
    assert contact == Contact("s", "item-0", "ngram", 3.0)


def test_runs_do_not_cross_from_one_text_into_the_next():
    # 8 tokens in a row only if question and answer are read as one text
    assert found(Sample("s", "Because it mirrors the blue", "water of all.")) == []
    joined = Sample("s", "And?", "on a clear day air scatters blue light")  # item-0's question, then its answer
    assert found(joined) == []


def test_alike_questions_are_a_contact():
    (contact,) = found(Sample("s", "Do goldfish forget it all after three seconds?", "Yes, so they say."))
    score = RougeScorer(["rougeL"]).score(ITEMS[1].question, "Do goldfish forget it all after three seconds?")
    assert contact == Contact("s", "item-1", "rouge", score["rougeL"].fmeasure)
    assert found(Sample("s", "Do goldfish forget it all after three seconds?", "Yes."), rouge=0.8) == []


def test_near_embeddings_are_a_contact():
    near = Sample("s", "Have small carps no memory?", "They have.")
    encoder = FakeEncoder({ITEMS[1].question: [1, 0], near.question: [0.96, 0.28], "Is it so?": [0.95, 0.3122]})
    (contact,) = found(near, encoder)
    assert contact == Contact("s", "item-1", "embedding", pytest.approx(0.96))
    assert found(near, encoder, cosine=0.97) == []
    assert found(near) == []


def test_a_pair_is_reported_once_with_the_first_kind():
    item = ITEMS[0]
    encoder = FakeEncoder({item.question: [1.0]})
    same = Sample("s", item.question, item.answer)
    assert [contact.kind for contact in found(same, encoder)] == ["ngram"]
    assert [contact.kind for contact in found(same, encoder, ngram=30)] == ["rouge"]
    assert [contact.kind for contact in found(same, encoder, ngram=30, rouge=1.0)] == ["embedding"]
    # a threshold of 1 looks for none, even where rounding lifts a cosine above 1
    encoder.rows[item.question] = [1.0001]
    assert found(same, encoder, ngram=30, rouge=1.0, cosine=1.0) == []


def test_one_sample_may_touch_several_items_and_unrelated_ones_none():
    both = Sample("a", ITEMS[0].question, f"And {ITEMS[1].question}")
    unrelated = Sample("b", "How deep is the Pacific Ocean at its deepest point?", "About eleven kilometres.")
    contacts = ContaminationIndex(ITEMS, None, ngram=6).contacts([unrelated, both])
    assert [(contact.sample_id, contact.item_id) for contact in contacts] == [("a", "item-0"), ("a", "item-1")]


def test_nothing_touches_nothing():
    encoder = FakeEncoder({})
    assert ContaminationIndex([], encoder).contacts([ITEMS[0]]) == []
    assert ContaminationIndex(ITEMS, encoder).contacts([]) == []


@pytest.mark.parametrize("ngram", [1, 2, 4])
def test_contacts_equal_a_comparison_of_all_pairs(ngram):
    draw = random.Random(ngram)

    def text():
        return " ".join(draw.choices(["a", "B", "c.", "dd", "e", "f", "g7", "h", "i", "j"], k=draw.randint(0, 8)))

    def sample(name):
        return Sample(name, text(), text(), correct_answers=(text(), text()), incorrect_answers=(text(),))

    items = [sample(f"item-{i}") for i in range(25)]
    samples = [sample(f"sample-{i}") for i in range(25)]
    rows = {s.question: np.abs(np.random.default_rng(i).normal(size=4)) for i, s in enumerate([*items, *samples])}
    rows = {question: row / np.linalg.norm(row) for question, row in rows.items()}
    expected = []
    for s in samples:
        for item in items:
            item_texts = [item.question, item.answer, *item.correct_answers, *item.incorrect_answers]
            shared = runs([s.question, s.answer], ngram) & runs(item_texts, ngram)
            rouge = RougeScorer(["rougeL"]).score(item.question, s.question)["rougeL"].fmeasure
            cosine = float(rows[s.question] @ rows[item.question])
            if shared:
                expected.append((s.id, item.id, "ngram", len(shared)))
            elif rouge > 0.3:
                expected.append((s.id, item.id, "rouge", rouge))
            elif cosine > 0.8:
                expected.append((s.id, item.id, "embedding", pytest.approx(cosine, abs=1e-5)))
    encoder = FakeEncoder(rows)
    contacts = ContaminationIndex(items, encoder, ngram=ngram, rouge=0.3, cosine=0.8).contacts(samples)
    assert [(c.sample_id, c.item_id, c.kind, c.figure) for c in contacts] == expected
    assert encoder.calls == 2  # once for the items, once for all samples
    if ngram == 4:
        assert {kind for _, _, kind, _ in expected} == {"ngram", "rouge", "embedding"}


def runs(texts, n):
    words = [text.lower().replace(".", "").split() for text in texts]
    return {tuple(line[i : i + n]) for line in words for i in range(len(line) - n + 1)}


@pytest.mark.parametrize("options", [{"ngram": 0}, {"rouge": 1.5}, {"cosine": -0.1}, {"rouge": float("nan")}])
def test_a_number_out_of_range_is_refused_with_its_name(options):
    (name,) = options
    with pytest.raises(InputError, match=f"{name} is .*; allowed: "):
        ContaminationIndex(ITEMS, None, **options)


def test_seeds_with_the_question_of_an_item_are_found():
    seeds = [
        Sample("seed-0", "why is the sky BLUE, on a clear  day", "Other."),
        Sample("seed-1", "Why is the sky blue on a cloudy day?", "Air scatters blue light."),
        Sample("seed-2", "金鱼会忘记一切吗", "会。"),
        Sample("seed-3", "海会忘记一切吗？", "会。"),
    ]
    again = Sample("item-3", "Why is the sky blue on a clear day", "Air.")
    assert overlapping(seeds, [*ITEMS, again]) == [("seed-0", "item-0"), ("seed-0", "item-3"), ("seed-2", "item-2")]
