"""Song's networks compute what EDM's compute with the same weights."""

import pytest
import torch
from helpers.differences import assert_close
from helpers.goldens import SONG, from_edm, released

from diffit.nets.layers import positional_embedding
from diffit.nets.song import SongUNet


@pytest.mark.parametrize("name", SONG)
def test_edms_weights_give_the_output_of_edms_network(golden, name):
    g = golden(name)
    net = SongUNet(SONG[name]).eval()
    net.load_state_dict(from_edm(released(g)))
    with torch.no_grad():
        out = net(g["x"], g["noise"])
    network = {"song_ddpmpp": "DDPM++", "song_ncsnpp": "NCSN++"}[name]
    assert_close(f"{network} against EDM's", out, g["output"], 1e-5)


def test_the_fourier_frequencies_have_standard_deviation_16_and_are_not_trained():
    torch.manual_seed(0)
    nets = [SongUNet(SONG["song_ncsnpp"]) for _ in range(20)]
    frequencies = torch.cat([net.frequencies for net in nets])
    assert frequencies.std().item() == pytest.approx(16, rel=0.1) and frequencies.mean().abs() < 3
    assert "frequencies" in nets[0].state_dict() and "frequencies" not in dict(nets[0].named_parameters())


def test_the_frequencies_of_the_positional_embedding_end_at_1_in_10000_only_with_endpoint():
    position = torch.tensor([3.0])
    ends = torch.tensor([3.0, 3e-4]).sin()  # of frequencies 1 and 1e-4
    assert torch.allclose(positional_embedding(position, 16, endpoint=True)[0, [8, -1]], ends)
    adm = torch.tensor([3.0, 3 * 10000 ** (-7 / 8)]).sin()
    assert torch.allclose(positional_embedding(position, 16)[0, [8, -1]], adm)
