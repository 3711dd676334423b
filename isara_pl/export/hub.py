"""An export on the Hugging Face hub."""

from pathlib import Path

from huggingface_hub import HfApi

from isara_pl.errors import InputError, first_line
from isara_pl.export.cards import Publication

REPOSITORY_TYPES = {"model": "model", "adapter": "model", "dataset": "dataset"}


def push(folder: Path, publication: Publication) -> list[str]:
    """Upload each part of an export into a repository of its own, private where it is made by this.

    Args:
        folder: The export.
        publication: Names the repositories.

    Returns:
        The repositories' addresses.

    Raises:
        InputError: If the hub cannot be reached, or does not admit it.
    """
    api = HfApi()
    places = {part: publication.place(part) for part in REPOSITORY_TYPES}
    try:
        addresses = [
            str(api.create_repo(places[part], repo_type=kind, private=True, exist_ok=True))
            for part, kind in REPOSITORY_TYPES.items()
        ]
        for part, kind in REPOSITORY_TYPES.items():
            api.upload_folder(
                repo_id=places[part],
                repo_type=kind,
                folder_path=folder / part,
                commit_message="Export of isara_pl",
                delete_patterns="*",  # of two kinds of weights, transformers might load those of an earlier push
            )
    except Exception as error:  # the hub's client raises its own errors, those of its HTTP library and of the system
        again = "\n".join(
            f"  hf upload {places[part]} {folder / part} . --repo-type {kind} --private --delete '*'"
            for part, kind in REPOSITORY_TYPES.items()
        )
        raise InputError(
            f"--push: {places['model']} could not be pushed ({first_line(error)}). The export in {folder} is whole. "
            "Log in with `hf auth login` if you are not, look at your network and at HF_HUB_OFFLINE, and then:\n"
            + again
        ) from error
    return addresses
