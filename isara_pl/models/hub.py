"""The model hub, where there may be no network."""

import socket
import urllib.request
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import constants

from isara_pl.run.notices import rank_zero_warn

PATIENCE = 3.0  # seconds


@cache
def go_offline_where_unreachable() -> None:
    """Take only what is on this machine where the hub cannot be reached: its own retries take a minute for each file.

    Behind a proxy nothing is tried, since only the proxy may reach it.
    """
    why = None if constants.HF_HUB_OFFLINE else _unreachable()
    if why:
        constants.HF_HUB_OFFLINE = True
        rank_zero_warn(f"{why}, so that only models on this machine are found. To try no more: HF_HUB_OFFLINE=1")


def is_offline() -> bool:
    """Whether the hub is not to be asked."""
    return bool(constants.HF_HUB_OFFLINE)


def why_not_there(name: str) -> str | None:
    """Say why nothing is to be had of a hub id: it is not on this machine, and no hub can be asked. None if it may."""
    if Path(constants.HF_HUB_CACHE, f"models--{name.replace('/', '--')}").exists():
        return None
    return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _unreachable()


@cache
def _unreachable() -> str | None:
    """Say why the hub cannot be reached, which is tried once; None where it can, or where only a proxy may."""
    if urllib.request.getproxies():
        return None
    place = urlsplit(constants.ENDPOINT)
    host, port = place.hostname or "", place.port or (80 if place.scheme == "http" else 443)
    try:
        socket.create_connection((host, port), timeout=PATIENCE).close()
    except OSError as error:
        return f"{host} cannot be reached ({error})"
    return None
