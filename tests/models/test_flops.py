"""FLOPs as torch's own counter sees them."""

import pytest
import torch
from conftest import ARCHITECTURES, make_tokenizer
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, MambaConfig

from isara_pl.generation.protocol import Sampling
from isara_pl.growth.retrieval import SentenceEncoder
from isara_pl.models.adapter import LoraOptions
from isara_pl.module import IsaraModule
from isara_pl.run.stages import StageListener, listen, stage, unlisten


class Listener(StageListener):
    def __init__(self, ended):
        self.ended = ended

    def on_stage_end(self, stage):
        self.ended.append(stage)


def loaded(folder: str, **options) -> IsaraModule:
    module = IsaraModule(folder, **options)
    module.configure_model()
    return module


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_generation_counts_what_torch_counts(tiny, architecture):
    module = loaded(tiny(architecture))
    sampling = Sampling(max_new_tokens=6, do_sample=False)
    prompts = [
        "Question: Why is the sky blue?\nAnswer:",
        "Question: Why is the sky blue on a clear day?\nAnswer:",
        "Why?",
    ]
    with module.merged(), sdpa_kernel(SDPBackend.MATH):  # folding an adapter in is not counted
        module.generate(prompts, sampling, [0, 1, 2])  # the engine tries out a model first
        with FlopCounterMode(display=False) as torchs, stage("answers") as ours:
            module.generate(prompts, sampling, [0, 1, 2])
    assert ours.flops == pytest.approx(torchs.get_total_flops(), rel=0.02)
    assert ours.done == 3
    assert ours.prompt_tokens == sum(len(module.tokenizer(prompt).input_ids) for prompt in prompts)
    assert 3 <= ours.generated_tokens <= 18


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_training_step_counts_what_torch_counts(tiny, architecture, checkpointing):
    module = loaded(tiny(architecture), gradient_checkpointing=checkpointing)
    ids = torch.arange(60).reshape(2, 30)
    with FlopCounterMode(display=False) as torchs, sdpa_kernel(SDPBackend.MATH), stage("training") as ours:
        module.adapted(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids, use_cache=False).loss.backward()
    # the first layer's inputs need no gradient: in a model of two layers that shows
    assert ours.flops == pytest.approx(torchs.get_total_flops(), rel=0.12)


def test_the_encoder_counts_what_torch_counts(tiny_encoder):
    encoder, ended = SentenceEncoder(tiny_encoder), []
    encoder.encode(["loads it"])

    listen(listener := Listener(ended))
    with FlopCounterMode(display=False) as torchs, sdpa_kernel(SDPBackend.MATH):
        encoder.encode(["Why is the sky blue?", "What is the largest ocean?", "Hello there"])
    unlisten(listener)
    (embedding,) = ended
    assert (embedding.name, embedding.done, embedding.total) == ("embedding", 3, 3)
    assert embedding.flops == pytest.approx(torchs.get_total_flops(), rel=0.15)  # its pooler sees one token a text


def test_models_without_attention_are_trained_and_counted_as_well(tmp_path):
    tokenizer = make_tokenizer()
    config = MambaConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, state_size=4, eos_token_id=0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    module = loaded(str(tmp_path), lora=LoraOptions(targets=["in_proj"]))
    with stage("answers") as ours:
        module.generate(["Why is the sky blue?"], Sampling(max_new_tokens=3, do_sample=False), [0])
    assert ours.flops > 0


def test_encoders_without_attention_count_their_texts(tmp_path):
    words = Tokenizer(WordLevel({"[UNK]": 0, "why": 1, "sky": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    SentenceTransformer(modules=[StaticEmbedding(words, embedding_dim=8)]).save(str(tmp_path))
    encoder, ended = SentenceEncoder(str(tmp_path)), []
    encoder.encode(["loads it"])

    listen(listener := Listener(ended))
    assert encoder.encode(["why sky", "why", "sky sky sky"]).shape == (3, 8)
    unlisten(listener)
    assert [(one.name, one.done) for one in ended] == [("embedding", 3)]
