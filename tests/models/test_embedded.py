import subprocess
import sys
import time

import torch

from camcli.models import embedded
from camcli.models.labels import find_category


def test_it_is_complete_and_ready() -> None:
    network, preprocessing, labels = embedded.load()
    assert not network.training
    assert preprocessing.size == preprocessing.scale == (embedded.SIZE, embedded.SIZE)
    assert len(set(labels)) == len(labels) == 100
    assert not any(tensor.is_meta for tensor in network.state_dict().values())
    assert all(parameter.requires_grad for parameter in network.parameters())
    with torch.no_grad():
        logits = network(torch.zeros(2, 3, 48, 64))
    assert logits.shape == (2, 100)
    assert torch.isfinite(logits).all()


def test_its_weights_are_trained() -> None:
    network, _, _ = embedded.load()
    counted = network.state_dict()["bn1.num_batches_tracked"]
    assert int(counted) > 0


def test_it_loads_in_under_a_third_of_a_second() -> None:
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        embedded.load()
        seconds.append(time.perf_counter() - begin)
    assert min(seconds) < 0.3


def test_its_labels_keep_their_synonyms_and_are_found() -> None:
    labels = embedded.labels()
    assert labels[find_category("tabby", labels, 100)] == "tabby, tabby cat"
    assert labels[find_category("Espresso", labels, 100)] == "espresso"
    assert labels[0] == "goldfish, Carassius auratus"


def test_it_needs_neither_timm_nor_torchvision() -> None:
    code = (
        "import sys; from camcli.models.load import load_model; load_model(device='cpu'); "
        "sys.exit(bool({'timm', 'torchvision', 'huggingface_hub'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
