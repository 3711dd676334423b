"""What tests of training share with others."""

from typing import Any

import torch

from isara_pl.module import IsaraModule


def loaded(name: str, **options: Any) -> IsaraModule:
    """A module whose adapter already does something: a fresh one has no gradient in its first half."""
    module = IsaraModule(name, **options)
    module.configure_model()
    torch.manual_seed(0)
    for key, parameter in module.adapted.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.05)
    return module
