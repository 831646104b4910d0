"""Train the LeNet-5 whose features the generation metrics use, and write its weights.

    python -m otcore_ae.metrics.train_lenet --data DIR

It takes two minutes on one core. Figures under other weights are comparable in order only.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from otcore_ae.data.mnist import MNISTData
from otcore_ae.metrics.lenet import WEIGHTS, LeNet5

EPOCHS, BATCH, RATE = 10, 128, 1e-3


def train(data: MNISTData, seed: int = 0) -> tuple[LeNet5, float]:
    """A trained network, and the share of the test set that it tells rightly."""
    torch.manual_seed(seed)
    network = LeNet5()
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    loader = data.train_dataloader()
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3 * RATE, total_steps=EPOCHS * len(loader))
    for epoch in range(EPOCHS):
        for batch in loader:
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(network(batch.images), batch.labels)
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {EPOCHS}: last loss {loss.item():.4f}", flush=True)
    with torch.no_grad():
        told = network.eval()(data.test_set.images).argmax(1)
    return network, (told == data.test_set.labels).double().mean().item()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with MNIST")
    parser.add_argument("--output", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    data = MNISTData(options.data, BATCH)
    try:
        data.setup()
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    network, accuracy = train(data)
    save_file(network.state_dict(), options.output, {"test_accuracy": f"{accuracy:.4f}"})
    print(f"test accuracy {accuracy:.4f}; written to {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
