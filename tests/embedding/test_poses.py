"""Every pose has its way back, and no two are alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autosam_net.data.encoding import PLAIN, POSES
from autosam_net.embedding.poses import put, put_back


@pytest.mark.parametrize("pose", [PLAIN, *POSES])
def test_what_is_put_in_a_pose_comes_back_exactly(pose: str) -> None:
    image = np.random.default_rng(0).random((2, 3, 8, 8))
    posed = put(image, pose)
    assert posed.flags.c_contiguous
    np.testing.assert_array_equal(put_back(torch.from_numpy(posed), pose).numpy(), image)


def test_poses_differ() -> None:
    image = np.arange(9).reshape(3, 3)
    assert len({put(image, pose).tobytes() for pose in (PLAIN, *POSES)}) == 1 + len(POSES)
