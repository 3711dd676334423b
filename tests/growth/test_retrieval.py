import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import make_seeds
from helpers.retrieval import CountingEncoder, HashedEncoder, samples
from lightning.pytorch.plugins.precision import HalfPrecision, MixedPrecision

from isara_pl.datamodule.datamodule import IsaraDataModule
from isara_pl.errors import InputError
from isara_pl.growth.retrieval import PoolIndex, SentenceEncoder, import_faiss
from isara_pl.growth.samples import Sample


def index_of(pool: list[Sample], encoder=None, **more) -> PoolIndex:
    index = PoolIndex(encoder or HashedEncoder(), **more)
    index.add(pool)
    return index


def test_nearest_equals_a_plain_search():
    encoder, pool = HashedEncoder(), samples()
    questions = ["Anything else?", "And another question?", pool[3].question, pool[-1].question, "Anything else?"]
    similarity = encoder.encode(questions) @ encoder.encode([sample.question for sample in pool]).T
    for row, found in enumerate(index_of(pool).nearest(questions, 5)):
        assert [sample.id for sample in found] == [pool[i].id for i in np.argsort(-similarity[row])[:5]]


def test_quota_limits_every_outer_epoch_and_the_seeds_fill_the_rest():
    index = index_of(samples())
    for count, quota, expected in [(6, 1, [4, 1, 1]), (3, 2, [0, 1, 2]), (30, 2, [8, 2, 2])]:
        for found in index.nearest([f"Anything {i}?" for i in range(10)], count, quota):
            assert [sum(sample.outer_epoch == t for sample in found) for t in (0, 1, 2)] == expected


def test_a_quota_of_nothing_leaves_the_seeds():
    (found,) = index_of(samples()).nearest(["Anything?"], 6, quota=0)
    assert [sample.outer_epoch for sample in found] == [0] * 6


def test_an_index_of_nothing_finds_nothing():
    assert PoolIndex(HashedEncoder()).nearest(["Anything?", "And more?"], 6) == [[], []]


def test_fewer_samples_than_asked_for():
    (found,) = index_of(make_seeds(3)).nearest(["Anything?"], 8)
    assert len(found) == 3


def test_every_sample_is_embedded_once_and_an_outer_epoch_in_one_go():
    encoder, pool = CountingEncoder(), samples()
    by_outer_epoch = [[sample.question for sample in pool if sample.outer_epoch == t] for t in (0, 1, 2)]
    index = index_of(pool[: len(make_seeds())], encoder)
    index.add(pool[: len(make_seeds()) + 6])
    index.add(list(pool))
    index.add(list(pool))
    assert encoder.calls == by_outer_epoch
    questions = [pool[0].question, "New?", pool[-1].question, "New?"]
    found = index.nearest(questions, 4)
    assert encoder.calls[3:] == [["New?"]]
    assert found == index_of(pool).nearest(questions, 4)


def test_another_pool_takes_the_place_of_the_one_before():
    index, other = index_of(samples()), make_seeds() + [Sample("1-00000", "Made otherwise?", "Yes.", 1)]
    index.add(other)
    assert index.nearest(["Anything?"], 20, up_to=1) == index_of(other).nearest(["Anything?"], 20)


def test_newer_outer_epochs_than_asked_for_are_not_found():
    index = index_of(samples())
    for newest in (0, 1, 2):
        (found,) = index.nearest([samples()[-1].question], 20, up_to=newest)
        assert {sample.outer_epoch for sample in found} == set(range(newest + 1))


def test_faiss_multiplies_matrices_for_a_batch_of_questions():
    index_of(samples())
    assert import_faiss().cvar.distance_compute_blas_threshold <= 20


@pytest.mark.parametrize(
    ("device", "gpus", "used"), [("cuda:1", 2, [1]), ("cuda", 1, [0]), ("cuda", 0, []), ("cpu", 1, [])]
)
def test_embeddings_lie_on_the_gpu_where_faiss_can(monkeypatch, device, gpus, used):
    faiss, moved, resources = import_faiss(), [], []

    class Resources:
        def __init__(self):
            resources.append(self)

        def setTempMemory(self, size):  # noqa: N802
            assert size <= 2**28

    def to_gpu(given, number, index):
        assert given is resources[0]
        moved.append(number)
        return index

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: gpus)
    monkeypatch.setattr(faiss, "StandardGpuResources", Resources, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", to_gpu, raising=False)
    index = index_of(samples(), device=device)
    assert moved == used * 3  # one index for each outer epoch
    assert len(resources) == len(used)
    assert index.nearest(["Anything?"], 5) == index_of(samples()).nearest(["Anything?"], 5)


def test_missing_faiss_names_the_two_extras(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match=r"isara_pl\[cpu\].*isara_pl\[gpu\]"):
        index_of(make_seeds())


def test_a_missing_encoder_is_one_clear_error(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        SentenceEncoder(str(tmp_path / "nothing")).encode(["a"])
    with pytest.raises(InputError, match=r"cannot load the sentence encoder"):
        SentenceEncoder(str(tmp_path)).encode(["a"])


@pytest.mark.parametrize(
    "precision", [MixedPrecision("bf16-mixed", "cpu"), HalfPrecision("bf16-true")], ids=["mixed", "true"]
)
@pytest.mark.parametrize("loaded", ["outside", "inside"])
def test_the_trainers_precision_changes_neither_embeddings_nor_neighbours(tiny_encoder, precision, loaded):
    questions = [f"Why is the sea {word} today?" for word in ("blue", "clear", "so large", "like light")]
    pool, encoder = samples(), SentenceEncoder(tiny_encoder)
    embeddings, nearest = encoder.encode(questions), index_of(pool, encoder).nearest(questions, 5)
    if loaded == "inside":
        encoder = SentenceEncoder(tiny_encoder)
    with precision.forward_context():
        assert np.array_equal(encoder.encode(questions), embeddings)
        assert index_of(pool, encoder).nearest(questions, 5) == nearest


def test_on_a_gpu_too_autocast_is_off_while_embedding(monkeypatch):
    class OnGPU:
        device = torch.device("cuda:1")

        def encode(self, texts, **options):
            assert not torch.is_autocast_enabled("cuda")
            return torch.eye(len(texts)).numpy()

    encoder = SentenceEncoder()
    encoder._model = OnGPU()
    was = torch.is_autocast_enabled("cuda")
    torch.set_autocast_enabled("cuda", True)  # what the trainer's mixed precision does there
    try:
        assert encoder.encode(["a", "b"]).shape == (2, 2)
        assert torch.is_autocast_enabled("cuda")
    finally:
        torch.set_autocast_enabled("cuda", was)


def test_the_encoder_is_on_the_trainers_device_whenever_it_is_asked_for(seeds_file):
    data = IsaraDataModule(seeds=seeds_file)
    module = SimpleNamespace(device=torch.device("cpu"))  # not moved yet
    data.trainer = SimpleNamespace(
        lightning_module=module, strategy=SimpleNamespace(root_device=torch.device("cuda:1"))
    )
    assert (data.encoder.device, data.index.device) == ("cuda:1", torch.device("cuda:1"))


@pytest.mark.real
def test_minilm_finds_the_question_on_the_same_topic():
    pool = [Sample(str(i), text, "x") for i, text in enumerate(
        ["How long do goldfish remember things?", "Why is the sky blue?", "Who built the pyramids of Giza?"])]  # fmt: skip
    found = index_of(pool, SentenceEncoder()).nearest(
        ["What colour is the heaven at noon?", "Were the Egyptian tombs built by slaves?"], 1
    )
    assert [hits[0].id for hits in found] == ["1", "2"]
