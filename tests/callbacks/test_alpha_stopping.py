import warnings
from collections import Counter
from types import SimpleNamespace

import pytest

from isara_pl.callbacks import AlphaStopping
from isara_pl.errors import InputError
from isara_pl.growth.outer_epoch import Growth


def growth(outer_epoch: int, accepted: int, candidates: int = 10) -> Growth:
    return Growth(outer_epoch, candidates, accepted, Counter({"TooShort": candidates - accepted}), 0, 1.0)


@pytest.mark.parametrize(("novelty", "stop"), [(0.19, True), (0.2, False), (0.9, False), (0.0, True), (None, False)])
def test_stops_below_alpha_only(novelty, stop):
    assert AlphaStopping(0.2).decide(2, novelty)[0] is stop


def test_alpha_zero_never_stops():
    assert AlphaStopping(0.0).decide(1, 0.0)[0] is False


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises(InputError, match=r"alpha_stopping\.alpha is .*; allowed: 0 to 1"):
        AlphaStopping(alpha)


def test_the_trainer_is_told_to_stop_and_a_later_outer_epoch_is_no_alarm():
    trainer = SimpleNamespace(should_stop=False)
    rule = AlphaStopping(0.5)
    rule.on_growth_end(trainer, growth(1, 5))
    assert not trainer.should_stop
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rule.on_growth_end(trainer, growth(2, 4))
    assert trainer.should_stop


def test_stopping_in_the_first_outer_epoch_says_loudly_what_to_change():
    with pytest.warns(UserWarning, match=r"nothing was trained.*2 of 10.*TooShort 8.*lower alpha_stopping\.alpha"):
        AlphaStopping(0.5).on_growth_end(SimpleNamespace(should_stop=False), growth(1, 2))


@pytest.mark.parametrize(
    ("rejected", "advice"),
    [
        ({"Unfinished": 5, "TooShort": 3}, r"alpha, raise max_new_tokens of data\.question_sampling and data\.answer"),
        ({"NoRoom": 5, "TooShort": 3}, r"alpha, lower max_new_tokens of data\.question_sampling and data\.answer"),
        ({"Unfinished": 3, "TooShort": 5}, "alpha, loosen the filter that took most"),
    ],
)
def test_where_a_number_of_tokens_is_why_most_are_taken_the_advice_names_it(rejected, advice):
    with pytest.warns(UserWarning, match=advice):
        AlphaStopping(0.5).on_growth_end(
            SimpleNamespace(should_stop=False), Growth(1, 10, 2, Counter(rejected), 0, 1.0)
        )


def test_a_stopped_run_stays_stopped_after_a_resume_unless_alpha_is_lowered():
    rule = AlphaStopping(0.5)
    rule.on_growth_end(SimpleNamespace(should_stop=False), growth(2, 4))
    for alpha, stopped in ((0.5, True), (0.3, False)):
        again, trainer = AlphaStopping(alpha), SimpleNamespace(should_stop=False)
        again.load_state_dict(rule.state_dict())
        again.on_fit_start(trainer, None)
        assert trainer.should_stop is stopped
