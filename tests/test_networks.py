"""Popular networks, from quantization to a verified file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

from networks import NETWORKS, check_network, check_twin

# MobileNetV3Small is in test_reported_models.py.
REPRESENTATIVE = ["preact_resnet18", "MobileNetV2"]


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_representative_networks_are_exact(name):
    found = check_network(name, 4, size=32)
    assert found.off_by_one < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_exact(name, bits):
    found = check_network(name, bits)
    assert found.off_by_one < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETWORKS if name[0].isupper()])
def test_keras_3_networks_are_copied_exactly(name):
    assert check_twin(name)["float64"] <= 1e-5
