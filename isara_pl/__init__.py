"""ISARA (arXiv 2401.06785) on Lightning: align a causal LM to a domain from fewer than 100 examples."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from isara_pl.errors import InputError

if TYPE_CHECKING:
    from isara_pl.datamodule.datamodule import IsaraDataModule
    from isara_pl.generation.protocol import Sampling
    from isara_pl.module import IsaraModule

__version__ = version("isara_pl")
__all__ = ["InputError", "IsaraDataModule", "IsaraModule", "Sampling", "__version__"]

# torch and Lightning take seconds to import: only those who ask for these wait for them
_IMPORTED_WHEN_ASKED_FOR = {
    "IsaraDataModule": "isara_pl.datamodule.datamodule",
    "IsaraModule": "isara_pl.module",
    "Sampling": "isara_pl.generation.protocol",
}


def __getattr__(name: str) -> Any:
    if name not in _IMPORTED_WHEN_ASKED_FOR:
        raise AttributeError(f"module 'isara_pl' has no attribute {name!r}")
    return getattr(import_module(_IMPORTED_WHEN_ASKED_FOR[name]), name)
