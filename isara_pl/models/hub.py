"""The model hub, where there may be no network."""

import socket
import urllib.request
from functools import cache
from urllib.parse import urlsplit

from huggingface_hub import constants

from isara_pl.run.notices import rank_zero_warn

PATIENCE = 3.0  # seconds


@cache
def go_offline_where_unreachable() -> None:
    """Take only what is on this machine where the hub cannot be reached: its own retries take a minute for each file.

    It is tried once. Behind a proxy nothing is tried, since only the proxy may reach it.
    """
    if constants.HF_HUB_OFFLINE or urllib.request.getproxies():
        return
    place = urlsplit(constants.ENDPOINT)
    host, port = place.hostname or "", place.port or (80 if place.scheme == "http" else 443)
    try:
        socket.create_connection((host, port), timeout=PATIENCE).close()
    except OSError as error:
        constants.HF_HUB_OFFLINE = True
        rank_zero_warn(
            f"{host} cannot be reached ({error}), so that only models on this machine are found. To try no more: "
            "HF_HUB_OFFLINE=1"
        )
