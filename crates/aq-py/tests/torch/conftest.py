"""What the tests with torch share."""
import os

# The models here are small: more threads only get into each other's way. To be set before torch is loaded.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

from pathlib import Path

import numpy as np
import pytest
import torch

DIGITS = Path(__file__).resolve().parents[4] / "docs" / "models" / "digits-dit"


@pytest.fixture(autouse=True)
def seeds():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def digits():
    """The folder of the example model."""
    return DIGITS


def error(got, want):
    """Norm of the difference over the norm of what is wanted."""
    got, want = got.detach().double(), want.detach().double()
    return float((got - want).norm() / want.norm())
