"""Shared fixtures: seeds, random numbers, small models, the folder of real data."""

from __future__ import annotations

import gc
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import hypothesis
import keras as keras3
import numpy as np
import pytest
from harness import tiny
from web.browser import chromium
from web.packages import PACKAGES, find_browser, is_set_up

import tflite_export
from tf_lsq._compat import keras

DATA_VARIABLE = "TF_LSQ_DATA"
# The same examples every time, however busy the machine is.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True)
hypothesis.settings.load_profile("tests")


@pytest.fixture(scope="module", autouse=True)
def _collected():
    """Collects garbage once per module; what is left then is searched no more."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded():
    keras.backend.clear_session()
    keras3.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def model(rng) -> keras.Model:
    """A small residual network."""
    return tiny.randomize(tiny.residual(), rng)


@pytest.fixture
def data(rng) -> tuple[np.ndarray, np.ndarray]:
    """64 images and labels for `model`."""
    x = rng.uniform(0, 1, (64, 8, 8, 3)).astype(np.float32)
    return x, rng.integers(0, 5, 64)


@pytest.fixture
def exported(rng, tmp_path):
    """A quantized residual network, its exported file and some data."""
    model = tiny.randomize(tiny.residual(), rng)
    student, x = tiny.student_of(model, rng, weight_bits=3, activation_bits=3)
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    return student, path, x


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real data sets and pretrained models, if there is one."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get(DATA_VARIABLE, default))
    if not (folder / "models").is_dir():
        pytest.skip(f"no real data; set {DATA_VARIABLE} to a folder that holds it")
    return folder


@pytest.fixture(scope="module")
def running():
    """A browser, if `make web` has set up what pages in it need."""
    if not is_set_up(PACKAGES):
        pytest.skip("`make web` has not set up LiteRT.js here")
    with chromium(PACKAGES, find_browser()) as browser:
        yield browser


@pytest.fixture(scope="session")
def exported_report(tmp_path_factory):
    """An export report with data and latencies, and its model and data."""
    keras.backend.clear_session()
    rng = np.random.default_rng(0)
    student, x = tiny.calibrated(tiny.pre_activation, rng)
    path = tmp_path_factory.mktemp("exported") / "model.tflite"
    report = tflite_export.export_model(
        student,
        path,
        storage="packed",
        data=(x, rng.integers(0, 5, len(x))),
        benchmark=True,
        verbose=False,
    )
    return report, student, x
