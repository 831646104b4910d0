"""A conditional autoencoder on your own images, labels and networks."""

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from otcore_ae import ConditionalE2ESAE, NoiseGenerator

images, labels = torch.rand(600, 1, 12, 12), torch.randint(0, 3, (600,))  # in [0, 1]; or real attributes
loader = DataLoader(TensorDataset(images, labels), batch_size=100, shuffle=True)
encoder = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(200, 4))
decoder = nn.Sequential(nn.Linear(4, 144), nn.Sigmoid(), nn.Unflatten(1, (1, 12, 12)))
model = ConditionalE2ESAE(encoder, decoder, NoiseGenerator(classes=3, latent_dim=4), classes=3)
L.Trainer(max_epochs=5).fit(model, loader)
made = model.sample(9, labels=torch.tensor([0, 1, 2] * 3))  # (9, 1, 12, 12)
