"""Models of the hub, where there is no network."""

import socket
import warnings

import pytest
from huggingface_hub import constants

from isara_pl.errors import InputError
from isara_pl.models import hub
from isara_pl.models.loading import load_tokenizer


@pytest.fixture
def tried(monkeypatch) -> list[tuple[str, int]]:
    """Give the places that were tried, none of which can be reached."""
    places: list[tuple[str, int]] = []

    def unreachable(place, timeout):
        places.append(place)
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.urllib.request, "getproxies", dict)
    asked = (hub.go_offline_where_unreachable, hub._unreachable)
    for one in asked:
        one.cache_clear()
    yield places
    for one in asked:
        one.cache_clear()


def test_a_hub_that_cannot_be_reached_is_tried_once_and_told_in_one_sentence(tried, monkeypatch):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            with pytest.raises(InputError, match="under 'nobody/no-such-model'"):
                load_tokenizer("nobody/no-such-model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert "cannot be reached" in str(hub.why_not_there("nobody/another"))
    assert len(tried) == 1
    assert len([one for one in said if "cannot be reached" in str(one.message)]) == 1


@pytest.mark.parametrize("why", ["offline already", "behind a proxy"])
def test_nothing_is_tried_where_that_says_nothing(tried, monkeypatch, why):
    if why == "offline already":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        monkeypatch.setattr(hub.urllib.request, "getproxies", lambda: {"https": "http://proxy:1"})
    hub.go_offline_where_unreachable()
    assert tried == []
