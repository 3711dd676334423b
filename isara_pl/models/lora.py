"""The adapter's options."""

from dataclasses import dataclass

from isara_pl.errors import InputError


@dataclass(frozen=True)
class LoraOptions:
    """The adapter.

    Attributes:
        r: Rank of the update.
        alpha: Scale of the update; it is multiplied by alpha / r.
        dropout: Share of the adapter's inputs dropped while training.
        targets: Names of the layers that get an adapter; null takes every linear layer except the output.
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: list[str] | None = None

    def __post_init__(self) -> None:
        if self.r < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise InputError(
                f"model.lora: r is {self.r} (allowed: at least 1), alpha is {self.alpha} (above 0), "
                f"dropout is {self.dropout} (at least 0 and below 1)"
            )
