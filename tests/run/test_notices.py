"""What this project warns of, as its users see it."""

import sys
import warnings

import pytest

from isara_pl.run.notices import print_as_sentences, rank_zero_warn


@pytest.fixture
def shown(monkeypatch, capsys):
    """Give what warnings print to stderr."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # is put back afterwards
    print_as_sentences()
    print_as_sentences()  # a second run in the process

    def of(warn) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            monkeypatch.setattr(warnings, "_showwarnmsg_impl", _printed)  # pytest records in its place
            warn()
        return capsys.readouterr().err

    return of


def _printed(message: warnings.WarningMessage) -> None:
    shown = warnings.formatwarning(message.message, message.category, message.filename, message.lineno, message.line)
    sys.stderr.write(shown)


def test_our_own_are_sentences_without_a_line_of_source_code(shown):
    assert shown(lambda: rank_zero_warn("the \x1b[31mpool is empty")) == "warning: the \\x1b[31mpool is empty\n"


def test_those_of_others_stay_as_they_were(shown):
    assert "test_notices.py" in shown(lambda: warnings.warn("old", stacklevel=1))
