"""Mean and covariance of features that arrive in shards."""

import numpy as np
import pytest

from diffit.cli import UserError
from diffit.scoring.frechet import Gaussian, Moments

FEATURES = (np.random.default_rng(0).standard_normal((9000, 24)) * np.arange(1, 25) + 50).astype(np.float32)


@pytest.mark.parametrize("cuts", [[1, 2, 8999], [0, 4500], list(range(100, 9000, 100))])
def test_shards_of_any_size_added_or_merged_equal_one_pass(cuts):
    one = Gaussian.of(FEATURES)
    added, merged = Moments.empty(24), Moments.empty(24)
    for shard in np.split(FEATURES, cuts):
        added.add(shard)
        part = Moments.empty(24)
        part.add(shard)
        merged.merge(part)
    for moments in (added, merged):
        many = moments.gaussian()
        assert many.count == 9000
        np.testing.assert_allclose(many.mean, one.mean, rtol=1e-12)
        assert np.abs(many.covariance - one.covariance).max() < 1e-12 * np.abs(one.covariance).max()


def test_one_image_features_of_another_width_and_nan_are_refused():
    moments = Moments.empty(24)
    moments.add(FEATURES[:1])
    with pytest.raises(UserError, match="at least 2 images"):
        moments.gaussian()
    with pytest.raises(UserError, match="width"):
        moments.merge(Moments.empty(8))
    moments.add(np.full((3, 24), np.nan, np.float32))
    with pytest.raises(UserError, match="NaN"):
        moments.gaussian()
