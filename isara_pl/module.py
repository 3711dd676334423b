"""The LightningModule: a causal LM with a LoRA adapter that trains on answers and completes prompts."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningModule
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from typing_extensions import Self

from isara_pl.errors import InputError
from isara_pl.evaluation.metrics import AnswerNLL
from isara_pl.generation.distributions import TokenDistributions, TopLogprobs
from isara_pl.generation.engine import GenerationEngine, GenerationTokens
from isara_pl.generation.protocol import Completion, Sampling
from isara_pl.generation.served import Served
from isara_pl.generation.vllm import GeneratorOptions
from isara_pl.models.adapter import Folding, LoraOptions, changes_anything, with_adapter
from isara_pl.models.flops import count_flops
from isara_pl.models.loading import Quantization, context_window, eval_mode, load_causal_lm, load_tokenizer
from isara_pl.models.precision import Widened, base_dtype, narrow, widen, without_vain_casts
from isara_pl.run.checkpoints import base_fingerprint, check_base, check_shapes, weights_hash
from isara_pl.run.options import options_of
from isara_pl.run.randomness import derive_seed
from isara_pl.strategies import AdapterFSDP
from isara_pl.training import step
from isara_pl.training.loaders import MeasuredBatch
from isara_pl.training.pairs import Batch, answer_nll
from isara_pl.training.step import Objective, answer_losses

PRETRAINED = "pretrained"
# options that decide what the trained model becomes, beside its dtype and the adapter's
_DECIDING = (
    *("name", "quantization", "learning_rate", "learning_rate_decay", "warmup_share", "weight_decay", "start_from"),
    *("objective", "distill_weight"),
)


class IsaraModule(LightningModule):
    """A Hugging Face causal LM with a LoRA adapter, fine-tuned on the tokens of answers.

    Knows neither pool nor filters. The base model stays as it is; checkpoints hold the adapter only.

    Args:
        name: The model: a hub id, a folder, a .gguf file, or package://module/path.
        lora: The adapter.
        generator: What writes the candidates; figures come from this process in any case (docs/CLUSTER.md).
        learning_rate: Peak of the learning rate in the first outer epoch.
        learning_rate_decay: Factor on the peak for every further outer epoch (released code: 0.5).
        warmup_share: Share of an outer epoch's optimiser steps in which the rate rises to its peak.
        weight_decay: AdamW's weight decay.
        start_from: Weights that an outer epoch starts from: `latest` are those of the one before, `base`
            a fresh adapter on the pretrained model.
        objective: What is learned from the samples of data.distill_on: `sft` is their answers; `distill` is context
            distillation (arXiv 2112.00861, 2209.15189), KL(teacher ‖ student) at the tokens of their answers, where the
            teacher is this model with demonstrations and the student this model without; `sft+distill` is both. All
            other samples, and the seeds in any case, are learned as they stand. The CLI tells the data.
        distill_weight: Weight of that divergence; a token's negative log-likelihood has the weight 1.
        epochs_per_outer_epoch: Passes over the pool in an outer epoch; the CLI takes it from the data.
        dtype: Type of the base's weights; `auto` is what `trainer.precision` computes in. The adapter
            stays float32.
        quantization: `nf4` keeps the base in 4 bits (QLoRA; a CUDA GPU and bitsandbytes).
        gradient_checkpointing: Compute activations twice to save memory.
        compile: torch.compile the decoder's layers for training; the first step takes half a minute longer, so it
            pays on long runs.
        generation_tokens: Most tokens, prompts and new ones, that are generated for at once; `auto` is what the
            GPU's free memory holds of their keys and values (on a CPU 32768). More is faster and takes more memory.
            Halved by itself where that does not suffice, for growing and for measuring apart; a run that goes on
            from a checkpoint keeps what it was then.
        evaluation_precision: In what held-out figures are computed. `float32` gives the same ones for every
            batch size, and takes twice the memory of a 16-bit base while it measures (and as much again while
            it generates answers); `trainer` is that of trainer.precision, faster and with rounding that depends
            on the batch size. The weights of an nf4 base stay in 4 bits in both: in float32 is what is computed from
            them.
        prediction_sampling: How `predict` draws its answers.
        trust_remote_code: Whether code that comes with the model may run.
        seed: Seed of the adapter's first weights; the CLI takes it from seed_everything.

    Raises:
        InputError: If a number is outside its range.
    """

    def __init__(
        self,
        name: str,
        lora: LoraOptions = LoraOptions(),
        generator: GeneratorOptions = GeneratorOptions(),
        learning_rate: float = 2e-4,
        learning_rate_decay: float = 0.5,
        warmup_share: float = 0.03,
        weight_decay: float = 0.0,
        start_from: Literal["latest", "base"] = "latest",
        objective: Objective = "sft",
        distill_weight: float = 1.0,
        epochs_per_outer_epoch: int = 1,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        quantization: Quantization = "none",
        gradient_checkpointing: bool = False,
        compile: bool = False,
        generation_tokens: GenerationTokens = "auto",
        evaluation_precision: Literal["float32", "trainer"] = "float32",
        prediction_sampling: Sampling = Sampling(do_sample=False, max_new_tokens=256),
        trust_remote_code: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for option, value, allowed, right in (
            ("learning_rate", learning_rate, "above 0", learning_rate > 0),
            ("learning_rate_decay", learning_rate_decay, "above 0 and at most 1", 0 < learning_rate_decay <= 1),
            ("distill_weight", distill_weight, "above 0", distill_weight > 0),
            ("warmup_share", warmup_share, "at least 0 and below 1", 0 <= warmup_share < 1),
            ("epochs_per_outer_epoch", epochs_per_outer_epoch, "at least 1", epochs_per_outer_epoch >= 1),
            ("generation_tokens", tokens := generation_tokens, "auto, or at least 1", tokens == "auto" or tokens >= 1),
        ):
            if not right:
                raise InputError(f"model.{option} is {value}; allowed: {allowed}")
        self.name, self.lora = name, options_of(LoraOptions, lora, "model.lora")
        generator = options_of(GeneratorOptions, generator, "model.generator")
        self.served = Served(generator) if generator.engine == "vllm" else None
        self.learning_rate, self.learning_rate_decay = learning_rate, learning_rate_decay
        self.warmup_share, self.weight_decay = warmup_share, weight_decay
        self.objective, self.distill_weight = objective, distill_weight
        self.start_from, self.epochs_per_outer_epoch = start_from, epochs_per_outer_epoch
        self.dtype_name, self.gradient_checkpointing = dtype, gradient_checkpointing
        self.quantization: Quantization = quantization
        self.compiled = compile  # nn.Module.compile is a method
        self.generation_tokens: GenerationTokens = generation_tokens
        self.evaluation_precision = evaluation_precision
        self.prediction_sampling = options_of(Sampling, prediction_sampling, "model.prediction_sampling")
        self.trust_remote_code, self.seed = trust_remote_code, seed
        self.model: PeftModel | None = None
        self.embedding_rows: int | None = None
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(name, trust_remote_code)
        self.answer_nll, self.validation_nll = AnswerNLL(), AnswerNLL()
        self._widened: Widened = {}
        self._of_step = torch.zeros(2)  # the loss and the tokens of an optimiser step's batches so far
        self._trained_on: list[str] = []

    # -- the model

    def configure_model(self) -> None:
        """Load the base and put a fresh adapter on it, once."""
        if self.model is not None:
            return
        dtype = base_dtype(self.dtype_name, str(self._trainer.precision) if self._trainer is not None else "32-true")
        base = load_causal_lm(self.name, dtype, self.quantization, self.trust_remote_code)
        self.embedding_rows = cast(torch.nn.Embedding, base.get_input_embeddings()).weight.shape[0]
        if self.gradient_checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": False})
            base.enable_input_require_grads()
        self.model = with_adapter(base, self.lora, self.name, self.seed)
        if self.compiled:
            step.compile_layers(self.model)
        self._flops = count_flops(base, self.gradient_checkpointing)
        self.model.train()
        self._engine = GenerationEngine(base, self.tokenizer, self.generation_tokens)
        self._folding = Folding(self.model)
        # now, since generation folds the adapter into the base's weights
        self._base_fingerprint = base_fingerprint(self.adapted)
        if self._trainer is not None and isinstance(self._trainer.strategy, AdapterFSDP):
            self._trainer.strategy.shard(base, self.evaluation_precision)
        self._fresh_adapter = {key: value.clone() for key, value in self.state_dict().items()}  # for start_from: base

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move to a device; types stay, since Lightning's bf16-true and 16-true would narrow the adapter as well."""
        device, _, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
        return self if device is None else super().to(device, non_blocking=non_blocking)

    @property
    def adapted(self) -> PeftModel:
        """The base with its adapter, once the Trainer has called `configure_model`."""
        if self.model is None:
            raise RuntimeError("the model is not loaded yet: call configure_model() first, as the Trainer does")
        return self.model

    @property
    def context_window(self) -> int | None:
        """Most tokens that the model can attend to; None where its config does not tell."""
        return context_window(self.adapted)

    def pretrained(self) -> AbstractContextManager[None]:
        """Switch the adapter off inside the block: the model as it was before any training."""
        engine = self.served.engine if self.served else None  # the one that generates now
        return engine.pretrained() if engine else self._folding.set_aside()

    def weights(self) -> str:
        """Name the weights as they are now: a hash of the adapter's, or `pretrained-` and one of the untrained base."""
        adapter = self.state_dict()
        if changes_anything(adapter):
            return weights_hash(adapter)
        return f"{PRETRAINED}-{self._base_fingerprint[:16]}"

    # -- generation

    def merged(self) -> AbstractContextManager[None]:
        """Generate with the adapter folded into the base's weights inside the block; training must not happen there.

        Saves merging anew for every call of `generate`, and takes memory for a copy of the adapted weights: without
        that, or where weights cannot be merged (4 bits), nothing changes.
        """
        return self._folding.in_use()

    def growing(self, samplings: Sequence[Sampling], top: TopLogprobs | None) -> AbstractContextManager[object]:
        """Let `generator` generate with the adapter of now inside the block, which all processes enter together."""
        return self.served.growing(self, self._engine, samplings, top) if self.served else self.merged()

    def generate(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int], top: TopLogprobs | None = None
    ) -> list[Completion]:
        """Complete each prompt with the current model, by its own seed; keep `top` of the tokens' distributions."""
        if self.served and self.served.engine:
            return self.served.engine.generate(prompts, sampling, seeds, top)
        with self.generating():
            return self._engine.generate(prompts, sampling, seeds, top)

    def distributions(
        self, prompts: Sequence[str], answers: Sequence[list[int]], sampling: Sampling, top: TopLogprobs
    ) -> list[TokenDistributions]:
        """Give what the current model finds likely at each token of given answers, and behind the last one."""
        with self.generating():
            return self._engine.distributions(prompts, answers, sampling, top)

    @contextmanager
    def generating(self) -> Iterator[None]:
        """Compute as `generate` does inside the block: in eval mode, the adapter folded in, nothing compiled."""
        model = self.adapted
        with eval_mode(model), self.merged(), without_vain_casts(model, self._folding.is_in_use), self._uncompiled():
            yield

    def completion_flops(self, prompt_tokens: int, new_tokens: int) -> int:
        """Give the floating-point operations of completing one prompt, as `isara_pl.models.flops` counts them."""
        return self._flops.completion(prompt_tokens, new_tokens)

    def _uncompiled(self) -> AbstractContextManager[object]:
        """Run layers as they are: each new cache and mask would be compiled for anew."""
        return torch.compiler.set_stance("force_eager") if self.compiled else nullcontext()

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, list[Any]]:
        """Answer the prompts of a batch: gives the lists `answer` and `finished`."""
        sampling = replace(self.prediction_sampling, stop_at_newline=batch["stop_at_newline"])
        seeds = [derive_seed(self.seed, "predict", name) for name in batch["id"]]
        completions = self.generate(batch["prompt"], sampling, seeds)
        parse: Callable[[str], str] = batch.get("parse_answer", str.strip)
        return {
            "answer": [parse(completion.text) for completion in completions],
            "finished": [completion.finished for completion in completions],
        }

    # -- training

    def on_train_epoch_start(self) -> None:
        """Begin an outer epoch with a fresh optimiser and, for `start_from: base`, a fresh adapter."""
        # Lightning calls this also for an outer epoch that the α rule ended before its first step
        if self.current_epoch % self.epochs_per_outer_epoch or self.trainer.should_stop:
            return
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        optimizer.state.clear()
        if self.start_from == "base":
            self.load_state_dict(self._fresh_adapter)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set this step's learning rate, and this batch's seed for dropout; both follow from the batch alone."""
        # other dropout in every process, the first one's as if it were alone
        rank = [self.global_rank] if self.global_rank else []
        torch.manual_seed(derive_seed(self.seed, "step", self.current_epoch, batch_idx, *rank))
        epoch = self.current_epoch % self.epochs_per_outer_epoch
        accumulated = self.trainer.accumulate_grad_batches
        per_epoch = math.ceil(self.trainer.num_training_batches / accumulated)  # the last step may have fewer batches
        rate = step.learning_rate_at(
            step=epoch * per_epoch + batch_idx // accumulated,
            steps=self.epochs_per_outer_epoch * per_epoch,
            peak=self.learning_rate * self.learning_rate_decay ** (self.current_epoch // self.epochs_per_outer_epoch),
            warmup_share=self.warmup_share,
        )
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        for group in optimizer.param_groups:
            group["lr"] = rate
        self.log("learning_rate", rate, batch_size=len(batch["sample_ids"]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Give this batch's part in the mean loss of the answers' tokens, over all processes.

        A token's loss is its negative log-likelihood where its answer is learned, and `distill_weight` times its
        divergence from the teacher's distribution where it has one. With `trainer.accumulate_grad_batches` the mean is
        that of all batches of the optimiser step, and what is logged that of those so far.
        """
        lean = step.lean_forward(self.adapted, batch["input_ids"].shape[1], self.compiled)
        with nullcontext() if self.gradient_checkpointing else lean:
            nll, divergence, tokens = answer_losses(self.adapted, batch)
        sums = nll + self.distill_weight * divergence
        of_this = torch.stack([sums.detach().sum(), tokens.sum()])
        of_all = cast(Tensor, self.trainer.strategy.reduce(of_this, reduce_op="sum"))
        accumulated = self.trainer.accumulate_grad_batches
        before = self._of_step.to(of_all) if batch_idx % accumulated else torch.zeros_like(of_all)
        self._of_step = before + of_all
        loss = self._of_step[0] / self._of_step[1]
        if not loss.isfinite():
            step.check_weights(self.state_dict().values(), self._trained_on)  # then it is not these samples' fault
            step.check_losses(sums, batch["sample_ids"])
        self.log("train_loss", loss, prog_bar=True, on_step=True, on_epoch=False, batch_size=len(sums))
        if batch_idx % accumulated:  # the gradient of the batches before is of a mean over their tokens alone
            step.scale_gradients(self.parameters(), float(before[1] / self._of_step[1]))
        # gradients are averaged over processes, and Lightning divides by the batches of a whole step, be they fewer:
        # times both numbers, it is that of the mean over all tokens
        return sums.sum() * (self.trainer.world_size * accumulated) / self._of_step[1]

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Look at the weights before anything is made of them: figures, a checkpoint, the exported adapter."""
        earlier = self._trained_on if batch_idx % self.trainer.accumulate_grad_batches else []
        self._trained_on = [*earlier, *batch["sample_ids"]]  # of the whole optimiser step
        if batch_idx + 1 == self.trainer.num_training_batches:
            step.check_weights(self.state_dict().values(), self._trained_on)

    def validation_step(self, batch: MeasuredBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure the negative log-likelihood per answer token, under the name in the batch; an empty one has none."""
        if len(batch) == 0:
            return
        with self.measuring():
            sums, tokens = answer_nll(self.adapted, batch)
        figure = batch.get("figure", "answer_nll")
        metric = self.answer_nll if figure == "answer_nll" else self.validation_nll
        metric.update(sums, tokens)
        self.log(figure, metric, prog_bar=True, batch_size=len(sums), add_dataloader_idx=False)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Compute in `evaluation_precision` inside the block, between the start and the end of a validation."""
        if self.evaluation_precision == "float32":
            precision: AbstractContextManager[object] = torch.autocast(self.device.type, enabled=False)
        else:
            precision = self.trainer.precision_plugin.forward_context()
        with precision, self._uncompiled(), self._engine.measuring():
            yield

    def on_validation_epoch_start(self) -> None:
        """Widen the weights to float32 for as long as it is measured; no bit of them is lost by that."""
        if self.evaluation_precision == "float32":
            widen(self.adapted, self._widened)

    def on_validation_epoch_end(self) -> None:
        """Give the weights their own type again; callbacks have measured by now."""
        narrow(self._widened)

    on_test_epoch_start = on_validation_epoch_start
    on_test_epoch_end = on_validation_epoch_end

    def test_step(self, batch: MeasuredBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure as in validation."""
        self.validation_step(batch, batch_idx)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW on the adapter. The schedule is set step by step in `on_train_batch_start`."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        # one kernel for hundreds of small matrices; Lightning clips no gradients of a fused optimiser
        fused = not self.trainer.gradient_clip_val
        return torch.optim.AdamW(trained, lr=self.learning_rate, weight_decay=self.weight_decay, fused=fused)

    # -- checkpoints: the adapter, and what its base was

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]  # torch overloads it
        """Give the adapter's weights; the frozen base is not part of a checkpoint."""
        return dict(get_peft_model_state_dict(self.adapted, save_embedding_layers=False))

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load an adapter's weights; those of another model or adapter are refused."""
        check_shapes(state_dict, self.state_dict(), self.name)
        return set_peft_model_state_dict(self.adapted, state_dict)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write down which base the adapter was trained on; weights that are not finite are refused."""
        step.check_weights(self.state_dict().values(), self._trained_on)
        checkpoint["base"] = self._base()
        checkpoint["generation"] = self._engine.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse an adapter of another base, and generate within the budgets of then."""
        self.configure_model()
        check_base(checkpoint.get("base", {}), self._base())
        self._engine.load_state(checkpoint.get("generation", {}))

    def _base(self) -> dict[str, str]:
        numbers = f"{self.quantization}, {self.adapted.dtype}"
        return {"name": f"{self.name} ({numbers})", "fingerprint": self._base_fingerprint}

    def conditions(self) -> dict[str, Any]:
        """Give what the model that writes an outer epoch depends on, by the names of the options."""
        options = {f"model.{name}": getattr(self, name) for name in _DECIDING}
        options |= {"model.lora": asdict(self.lora), "model.dtype": self.dtype_name}
        return {**options, "model.generator": self.served.condition(self.tokenizer) if self.served else "builtin"}
