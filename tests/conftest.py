from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # on a busy machine, time decided two laws
settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """Let pass what rasterio itself does that affine 3 means to deprecate one day."""
    config.addinivalue_line("filterwarnings", "ignore:Use `@` matmul:PendingDeprecationWarning")
    # JAX, which litert-torch brings, minds every child process that another converter starts beside it.
    config.addinivalue_line("filterwarnings", r"ignore:os\.fork\(\) was called:RuntimeWarning")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real scenes that lie beside the checkout and are never committed."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no shared/data beside the checkout: tests on real scenes are left out")
    return folder
