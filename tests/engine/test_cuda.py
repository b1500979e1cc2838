"""Maps on a GPU are those of the CPU."""

import pytest
import torch

import camcli
from camcli.registry import METHODS
from tests.networks import network_for, noise

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("name", METHODS)
def test_cuda_gives_the_maps_of_the_cpu(name: str) -> None:
    wanted = camcli.heatmaps(network_for(name), noise(), name, targets=[1, 2])
    found = camcli.heatmaps(network_for(name).cuda(), noise(), name, targets=[1, 2])
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), wanted, rtol=1e-3, atol=1e-4)
