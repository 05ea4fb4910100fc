"""The notes' examples against their closed forms."""

from problems.examples import spike

import numpy as np


def test_the_step_at_a_spike_is_the_root_of_the_averages_length():
    # vh = (b2 (1 - b2^(t-1)) + (1-b2) 1e10) / (1 - b2^t) at step t = before + 1; the gradient is 1e5
    for before in (10, 2000):
        found, b2, t = spike(0, None, before, after=20), 0.999, before + 1
        at = found["step"].index(t)
        vh = (b2 * (1 - b2**before) + (1 - b2) * 1e10) / (1 - b2**t)
        assert found["adam"][at] == found["amsgrad"][at]
        np.testing.assert_allclose(found["adam"][at], 1e5 / np.sqrt(vh), rtol=1e-9)
        v = b2 * (b2 * (1 - b2**before) + (1 - b2) * 1e10) + 1 - b2  # a gradient of 1 follows
        np.testing.assert_allclose(found["adam"][at + 1], 1 / np.sqrt(v / (1 - b2 ** (t + 1))), rtol=1e-9)
        assert len(found["step"]) == len(found["adam"]) == min(before, 50) + 21
