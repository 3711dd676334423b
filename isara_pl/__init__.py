"""ISARA (arXiv 2401.06785) on Lightning: align a causal LM to a domain from fewer than 100 examples."""

from importlib.metadata import version

from isara_pl.datamodule import IsaraDataModule
from isara_pl.errors import InputError
from isara_pl.module import IsaraModule

__version__ = version("isara_pl")
__all__ = ["InputError", "IsaraDataModule", "IsaraModule", "__version__"]
