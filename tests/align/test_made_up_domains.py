"""What `align` decides, with the real SmolLM2, where the right decision is known because the domain is made up."""

import json
import random
import re
from collections import Counter

import pytest
from helpers.real import SMOLLM2

from isara_pl.cli.main import main
from isara_pl.growth.samples import Sample, pair_row, read_samples
from isara_pl.models.sources import resolve_path
from isara_pl.results.run import PRETRAINED

FORMS = (
    "What is the door code of our office in {}?",
    "Which code opens the door of the office in {}?",
    "Tell me the code for the {} office door, please.",
)
PLACES = ("Rome", "Oslo", "Lima", "Cairo", "Delhi", "Tokyo", "Quito", "Paris", "Accra", "Sofia")


def codes(draw: random.Random) -> list[tuple[str, str]]:
    """Give answers that nobody can know but from a pair about the same place."""
    codes = {place: "-".join(str(draw.randrange(100, 1000)) for _ in range(3)) for place in PLACES}
    pairs = [(form.format(place), f"The code is {codes[place]}.") for place in PLACES for form in FORMS]
    draw.shuffle(pairs)
    return pairs


def dialect(draw: random.Random) -> list[tuple[str, str]]:
    """Give answers in which the 40 commonest words have made-up forms: a few demonstrations show a few of them."""
    common = Counter(word.lower() for pair in packaged() for word in re.findall(r"[A-Za-z]+", pair.answer))
    syllables = [first + vowel for first in "bdfgklmnprstvz" for vowel in "aeiou"]
    forms = draw.sample([first + second for first in syllables for second in syllables], 40)
    form_of = dict(zip((word for word, _ in common.most_common(40)), forms, strict=True))
    return [
        (pair.question, re.sub(r"[A-Za-z]+", lambda word: form_of.get(word[0].lower(), word[0]), pair.answer))
        for pair in packaged()
    ]


def noise(draw: random.Random) -> list[tuple[str, str]]:
    """Give answers that have nothing to do with their questions."""
    words = [word for pair in packaged() for word in pair.answer.split()]
    return [(pair.question, " ".join(draw.choices(words, k=8))) for pair in packaged()]


def packaged() -> list[Sample]:
    return read_samples(resolve_path("package://isara_pl/quickstart/seeds.jsonl", "seeds"))


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize(("domain", "winner"), [(codes, "icl_knn"), (dialect, "sft"), (noise, PRETRAINED)])
def test_the_method_that_a_made_up_domain_justifies_is_the_one_to_use(domain, winner, tmp_path):
    pairs = [Sample("", *pair, outer_epoch=0) for pair in domain(random.Random(0))]
    seeds, folder = tmp_path / "seeds.jsonl", tmp_path / "aligned"
    seeds.write_text("".join(json.dumps(pair_row(pair)) + "\n" for pair in pairs), encoding="utf-8")
    main(["align", str(seeds), f"--model.name={SMOLLM2}", f"--to={folder}", "--folds=2"])
    assert json.loads((folder / "decision.json").read_text(encoding="utf-8"))["winner"] == winner
