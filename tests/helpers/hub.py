"""What the library `datasets` keeps of a data set of the hub, made without a hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset
from datasets.data_files import DataFilesDict
from datasets.load import configure_builder_class
from datasets.naming import camelcase_to_snakecase
from datasets.packaged_modules.parquet.parquet import Parquet, ParquetConfig

COMMIT = "5d1c" * 10


def cached_data_set(
    cache: Path,
    name: str,
    splits: Mapping[str, Dataset | dict[str, Any]],
    config: str = "default",
    commit: str = COMMIT,
) -> None:
    """Put a data set into a cache, by the very builder that reads one of Parquet files from the hub."""
    owner, _, own = name.partition("/")
    files = {}
    for split, columns in splits.items():
        path = cache.parent / f"{config}-{split}.parquet"
        (columns if isinstance(columns, Dataset) else Dataset.from_dict(columns)).to_parquet(path)
        files[split] = [str(path)]
    of_hub = ParquetConfig(name=config, data_files=DataFilesDict.from_patterns(files))
    builder = configure_builder_class(Parquet, builder_configs=[of_hub], default_config_name=None, dataset_name=own)
    place = cache / f"{owner}___{camelcase_to_snakecase(own)}" / config / "0.0.0" / commit
    builder(str(cache), own, config, hash=commit).download_and_prepare(output_dir=str(place))
