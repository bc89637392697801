"""The sounds that the examples make."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))

import sounds


@pytest.fixture(scope="module")
def made():
    return sounds.load(700, 300)


def test_features_have_the_shape_of_keyword_spotting(made):
    assert made.x_train.shape == (700, 49, 10, 1) and made.x_test.shape[0] == 300
    assert made.x_train.dtype == np.float32
    assert set(made.y_train) == set(made.y_test) == set(range(12))
    np.testing.assert_allclose(made.x_train.mean(axis=(0, 1)), 0, atol=1e-4)
    np.testing.assert_allclose(made.x_train.std(axis=(0, 1)), 1, atol=1e-4)


def test_the_same_seed_makes_the_same_sounds_and_held_out_ones_differ():
    one, same, other = (sounds.load(20, 20, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.x_train, same.x_train)
    np.testing.assert_array_equal(one.y_test, same.y_test)
    assert (one.x_train != other.x_train).any()
    assert (one.x_train != one.x_test).any()


def test_a_small_classifier_tells_many_words_apart_but_not_all(made):
    def flat(x):
        return x.reshape(len(x), -1)

    model = RidgeClassifier(1000.0).fit(flat(made.x_train), made.y_train)
    assert 0.4 < model.score(flat(made.x_test), made.y_test) < 0.95


def test_every_word_is_spoken_with_known_phones_and_differs_from_the_others():
    assert len(set(sounds.WORDS)) == 12
    assert {letter for word in sounds.WORDS for letter in word} <= set(sounds.PHONES)
    spoken = sounds.sounds(np.arange(12), np.random.default_rng(0))
    assert spoken.shape == (12, sounds.RATE) and np.isfinite(spoken).all()
