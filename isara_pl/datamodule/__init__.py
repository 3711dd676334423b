"""The data module: the pool opened, grown and remembered, its teacher asked, its seeds held out."""

from isara_pl.datamodule.datamodule import IsaraDataModule

__all__ = ["IsaraDataModule"]
