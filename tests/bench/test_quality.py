"""Scores get worse with each step of damage to real images."""

import pytest

from bench.quality import DAMAGES, compare_damages

COUNT = 300


@pytest.mark.slow
@pytest.mark.extended
def test_scores_of_real_images_get_worse_with_each_step_of_damage(shared_data, inception, tmp_path):
    frame = compare_damages(shared_data / "cifar10_jpeg.zip", COUNT, inception, tmp_path)
    undamaged = frame[frame["what"] == "undamaged"].iloc[0]

    def steps(what: str, metric: str) -> list[float]:
        return [undamaged[metric], *frame[frame["what"] == what][metric]]

    for damage in DAMAGES:
        values = steps(damage.name, "fid")
        assert values == sorted(values) and values[-1] > 1.5 * values[0], (damage.name, values)
        # With so few images, spatial features distinguish only the strongest damage.
        assert steps(damage.name, "sfid")[-1] > steps(damage.name, "sfid")[0]
    noisy = steps(DAMAGES[1].name, "precision")
    assert noisy == sorted(noisy, reverse=True) and noisy[-1] < noisy[0] / 2, noisy
    fewer = steps("classes left", "recall")
    assert fewer[-1] < fewer[0] - 0.1, fewer
    assert steps("classes left", "fid")[-1] > steps("classes left", "fid")[0]
