import sys
import zlib

import numpy as np
import pytest
from conftest import make_seeds

from isara_pl.errors import InputError
from isara_pl.growth.retrieval import PoolIndex, SentenceEncoder
from isara_pl.growth.samples import Sample


class HashedEncoder:
    def encode(self, texts):
        rows = np.stack([np.random.default_rng(zlib.crc32(text.encode())).normal(size=8) for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def samples() -> list[Sample]:
    grown = [Sample(f"{t}-{i:05d}", f"Made question {t} {i}?", "Yes.", t) for t in (1, 2) for i in range(6)]
    return make_seeds() + grown


def test_nearest_equals_a_plain_search():
    encoder, pool = HashedEncoder(), samples()
    questions = ["Anything else?", "And another question?", pool[3].question]
    similarity = encoder.encode(questions) @ encoder.encode([sample.question for sample in pool]).T
    for row, found in enumerate(PoolIndex(encoder, pool).nearest(questions, 5)):
        assert [sample.id for sample in found] == [pool[i].id for i in np.argsort(-similarity[row])[:5]]


def test_quota_limits_every_outer_epoch_and_the_seeds_fill_the_rest():
    (found,) = PoolIndex(HashedEncoder(), samples()).nearest(["Anything?"], 6, quota=1)
    assert [sum(sample.outer_epoch == t for sample in found) for t in (0, 1, 2)] == [4, 1, 1]


def test_fewer_samples_than_asked_for():
    (found,) = PoolIndex(HashedEncoder(), make_seeds(3)).nearest(["Anything?"], 8)
    assert len(found) == 3


def test_missing_faiss_names_the_two_extras(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match=r"isara_pl\[cpu\].*isara_pl\[gpu\]"):
        PoolIndex(HashedEncoder(), make_seeds())


def test_a_missing_encoder_is_one_clear_error(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        SentenceEncoder(str(tmp_path / "nothing")).encode(["a"])
    with pytest.raises(InputError, match=r"cannot load the sentence encoder"):
        SentenceEncoder(str(tmp_path)).encode(["a"])


@pytest.mark.real
def test_minilm_finds_the_question_on_the_same_topic():
    pool = [Sample(str(i), text, "x") for i, text in enumerate(
        ["How long do goldfish remember things?", "Why is the sky blue?", "Who built the pyramids of Giza?"])]  # fmt: skip
    found = PoolIndex(SentenceEncoder(), pool).nearest(
        ["What colour is the heaven at noon?", "Were the Egyptian tombs built by slaves?"], 1
    )
    assert [hits[0].id for hits in found] == ["1", "2"]
