"""Shapes in signatures are executed: every function of rsb_pose_core is checked while testing."""

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook('rsb_pose_core', 'type_checker.check')
torch.set_num_threads(1)  # tests are small, and on a busy machine threads wait for each other


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker('gpu'):
            item.add_marker(pytest.mark.skip(reason='needs a CUDA device'))
