"""What moves to the device beside the model: judges, the encoder, the index, the adapter's first weights."""

import numpy as np
import pytest
import torch
from conftest import make_seeds
from helpers.judges import ANSWERS, QUESTIONS, TEMPLATE, save_classifier
from helpers.retrieval import HashedEncoder, samples

from isara_pl.evaluation.judges import GuardModelJudge, RewardModelJudge, SequenceClassifierJudge, judged
from isara_pl.growth.retrieval import PoolIndex, SentenceEncoder, import_faiss
from isara_pl.module import IsaraModule

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("kind", ["classifier", "reward model", "guard model"])
def test_a_judge_scores_on_the_device_as_on_the_cpu_and_leaves_its_memory(tiny_llama, tmp_path, device, kind):
    def judge():
        if kind == "guard model":
            return GuardModelJudge(tiny_llama, template=TEMPLATE, batch_size=2)
        if kind == "reward model":
            return RewardModelJudge(save_classifier(tmp_path / "reward", "llama", labels=("one",)), template=TEMPLATE)
        return SequenceClassifierJudge(save_classifier(tmp_path / "judge", "bert"), TEMPLATE, multi_label=True)

    expected = judged(judge(), torch.device("cpu"), QUESTIONS, ANSWERS)
    on_device = judge()
    with torch.autocast(device, torch.bfloat16):  # the trainer's, which is not for judges
        found = judged(on_device, torch.device(device), QUESTIONS, ANSWERS)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        if device == "cuda":
            before = torch.cuda.memory_allocated()
            assert torch.equal(judged(on_device, torch.device(device), QUESTIONS, ANSWERS), found)
            assert torch.cuda.memory_allocated() == before


def test_embeddings_equal_the_cpus(tiny_encoder, device):
    texts = [sample.question for sample in make_seeds()]
    expected, found = (SentenceEncoder(tiny_encoder, where).encode(texts) for where in ("cpu", device))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_index_on_the_device_finds_what_the_cpus_finds(device):
    if device == "cuda" and not import_faiss().get_num_gpus():
        pytest.skip("this faiss is built for the CPU")
    found = []
    for where in ("cpu", device):
        index = PoolIndex(HashedEncoder(), where)
        index.add(samples())
        questions = [f"Anything {number}?" for number in range(20)] + [samples()[3].question]
        found.append([index.nearest(questions, 5), index.nearest(questions, 6, quota=1, up_to=1)])
    assert found[1] == found[0]


def test_a_fresh_adapter_is_the_same_on_every_device(tiny_llama, device):
    found = []
    for where in ("cpu", device):
        torch.manual_seed(len(found))
        module = IsaraModule(tiny_llama)
        with torch.device(where):  # as the Trainer loads it
            module.configure_model()
        found.append(module.to(where).state_dict())
    for name, weight in found[0].items():
        assert torch.equal(found[1][name].cpu(), weight), name
