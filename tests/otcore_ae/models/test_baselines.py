"""The models without a Sinkhorn term, and the conditional ones."""

from __future__ import annotations

import math

import pytest
import torch

from otcore import SamplesLoss
from otcore_ae import (
    CWAE,
    E2ESAE,
    VAE,
    WAEMMD,
    ConditionalDCGAN,
    ConditionalE2ESAE,
    ConditionalVAE,
    ConditionalWAEMMD,
    NoiseGenerator,
    Transport,
    conditional_network,
    dcgan_network,
    e2e_network,
    mlp,
)
from otcore_ae.data import Batch
from otcore_ae.history import History
from otcore_ae.models import Step
from otcore_ae.models.vae import VariationalStep
from otcore_ae.models.wae import cramer_wold_normality, imq_mmd
from otcore_ae.networks.e2e import ConditionedDecoder, ConditionedEncoder


def encoder(outputs: int, channels: int = 1) -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(16 * channels, 16), torch.nn.ReLU(), torch.nn.Linear(16, outputs)
    )


def decoder(inputs: int) -> torch.nn.Module:
    return mlp(4, latent_dim=inputs, hidden=(16,))[1]


BUILD = {
    "VAE": lambda: VAE(encoder(4), decoder(2), 2),
    "WAE": lambda: WAEMMD(encoder(2), decoder(2), latent_dim=2),
    "CWAE": lambda: CWAE(encoder(2), decoder(2), 2),
    "E2E": lambda: E2ESAE(encoder(2), decoder(2), NoiseGenerator(classes=0, latent_dim=2), latent_weight=0.1),
    "conditional E2E": lambda: ConditionalE2ESAE(
        encoder(2), decoder(2), NoiseGenerator(latent_dim=2), latent_weight=0.1
    ),
    "conditional VAE": lambda: ConditionalVAE(
        ConditionedEncoder(encoder(4, 11)), ConditionedDecoder(decoder(12)), 2
    ),
    "conditional WAE": lambda: ConditionalWAEMMD(
        ConditionedEncoder(encoder(2, 11)), ConditionedDecoder(decoder(12)), latent_dim=2
    ),
    "DCGAN": lambda: ConditionalDCGAN(
        ConditionedDecoder(decoder(74)), ConditionedEncoder(encoder(1, 11)), learning_rate=5e-3
    ),
}
CONDITIONAL = ("conditional E2E", "conditional VAE", "conditional WAE", "DCGAN")


@pytest.mark.parametrize("name", BUILD)
def test_trains_and_samples(name: str, tiny_data, trainer) -> None:
    torch.manual_seed(0)
    model, history = BUILD[name](), History()
    model.learning_rate = 5e-3
    trainer(max_epochs=12, callbacks=[history]).fit(model, tiny_data())
    falling = "train/discriminator" if name == "DCGAN" else "train/reconstruction"
    curve = history.curves[falling].values
    assert curve[-1] < (0.97 if name == "DCGAN" else 0.85) * curve[0]
    assert {f"train/{term}" for term in model.term_names()} <= set(history.curves)
    labels = torch.arange(6) if name in CONDITIONAL else None
    draws = [model.sample(6, torch.Generator().manual_seed(3), labels=labels) for _ in range(2)]
    assert draws[0].shape == (6, 1, 4, 4)
    assert torch.equal(*draws)
    assert draws[0].min() >= 0
    assert draws[0].max() <= 1


@pytest.mark.parametrize("name", CONDITIONAL)
def test_conditional_models_need_labels_that_fit(name: str) -> None:
    model = BUILD[name]()
    with pytest.raises(ValueError, match="needs labels"):
        model.sample(6)
    with pytest.raises(ValueError, match="from 0 to 9 for 10 classes, got 10 to 15; give classes=16"):
        model.sample(6, labels=torch.arange(10, 16))
    with pytest.raises(ValueError, match=r"real labels must be \(b, 10\), got \(6, 9\)"):
        model.sample(6, labels=torch.rand(6, 9))


def test_conditions_decide_what_is_made() -> None:
    """The same noise under other labels gives other images."""
    for name in CONDITIONAL:
        torch.manual_seed(0)
        model = BUILD[name]().eval()
        one, other = (
            model.sample(4, torch.Generator().manual_seed(0), labels=torch.full((4,), digit))
            for digit in (1, 2)
        )
        assert not torch.allclose(one, other), name


def test_both_networks_of_the_e2e_sae_are_reached() -> None:
    """The divergence's gradient flows to the encoder and to the noise generator, not to the decoder."""
    model = BUILD["conditional E2E"]()
    batch = Batch(torch.rand(20, 1, 4, 4), torch.arange(20) % 10, torch.arange(20))
    model.terms(model.step_of(batch))["latent"].backward()
    for network in (model.encoder, model.noise_generator):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    assert all(p.grad is None for p in model.decoder.parameters())


def test_the_divergence_sees_the_conditions() -> None:
    """With equal latents everywhere only the conditions' own transport is left: none, they are the same."""
    latents, labels = torch.zeros(20, 2), torch.arange(20) % 10
    model = BUILD["conditional E2E"]()
    with torch.no_grad():
        for p in model.noise_generator.parameters():
            p.zero_()
    images = torch.zeros(20, 1, 4, 4)
    step = Step(images, latents, images, labels, labels)
    assert model.divergence(step).item() == pytest.approx(0, abs=1e-6)
    moved = Step(images, latents + torch.tensor([1.0, 0.0]), images, labels, labels)
    assert model.divergence(moved).item() == pytest.approx(0.5, rel=1e-3)


def test_published_transport_of_the_e2e_sae() -> None:
    """blur .05, scaling .95, diameter .01 in GeomLoss's schedule."""
    x, y = torch.randn(30, 3), torch.randn(30, 3)
    found = Transport(blur=0.05, scaling=0.95, diameter=0.01, schedule="geomloss")(x, y)
    assert found == SamplesLoss("sinkhorn", p=2, blur=0.05, scaling=0.95, diameter=0.01)(x, y)


def test_a_vae_needs_twice_the_numbers() -> None:
    with pytest.raises(ValueError, match="must give 2 x 2 numbers an image"):
        VAE(encoder(3), decoder(2), 2).encode(torch.rand(5, 1, 4, 4))


def test_kl_against_its_integral() -> None:
    """KL(N(m, s^2) | N(0, 1)) by quadrature."""
    model = VAE(encoder(2), decoder(1), 1)
    mean, log_variance = torch.tensor([[0.7]]), torch.tensor([[-0.8]])
    image = torch.zeros(1, 1, 4, 4)
    step = VariationalStep(image, mean, image, image, image, mean, log_variance)
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    own = torch.distributions.Normal(0.7, math.exp(-0.4))
    integrand = own.log_prob(z).exp() * (own.log_prob(z) - torch.distributions.Normal(0.0, 1.0).log_prob(z))
    assert model.terms(step)["kl"].item() == pytest.approx(torch.trapezoid(integrand, z).item(), rel=1e-5)


def test_imq_mmd_against_loops() -> None:
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64) + 1

    def k(a, b):
        return sum(c / (c + (a - b).square().sum()) for c in (6 * s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10)))

    own = sum(k(x[i], x[j]) for i in range(5) for j in range(5) if i != j) / 20
    own += sum(k(y[i], y[j]) for i in range(4) for j in range(4) if i != j) / 12
    cross = sum(k(a, b) for a in x for b in y) / 20
    assert imq_mmd(x, y).item() == pytest.approx((own - 2 * cross).item(), rel=1e-12)


def test_cramer_wold_against_directions() -> None:
    """The mean over directions of the squared L2 distance of 1-D densities smoothed by N(0, g), in 20-D."""
    torch.manual_seed(0)
    x = 2 * torch.randn(60, 20, dtype=torch.float64) + 1.5
    gamma = (4 / (3 * len(x))) ** 0.4
    line = torch.linspace(-15, 15, 1501, dtype=torch.float64)
    directions = torch.nn.functional.normalize(torch.randn(800, 20, dtype=torch.float64), dim=1)
    normal = torch.distributions.Normal(0.0, math.sqrt(1 + gamma)).log_prob(line).exp()
    total = 0.0
    for v in directions:
        offsets = line[:, None] - (x @ v)[None, :]
        density = (-offsets.square() / (2 * gamma)).exp().mean(1) / math.sqrt(2 * math.pi * gamma)
        total += torch.trapezoid((density - normal).square(), line).item() / len(directions)
    assert cramer_wold_normality(x).item() == pytest.approx(total, rel=0.04)
    with pytest.raises(ValueError, match="at least 2 dimensions, got 1"):
        cramer_wold_normality(x[:, :1])


def test_published_networks() -> None:
    """Shapes and sizes on 28 x 28 pixels; images inside [0, 1]."""
    encode, decode = e2e_network()
    images, labels = torch.rand(4, 1, 28, 28), torch.nn.functional.one_hot(torch.arange(4), 10).float()
    assert encode(images).shape == (4, 16)
    made = decode(torch.randn(4, 16))
    assert made.shape == (4, 1, 28, 28)
    assert made.min() >= 0
    assert made.max() <= 1
    larger = e2e_network(image_size=44)
    assert larger[1](larger[0](torch.rand(4, 1, 44, 44))).shape == (4, 1, 44, 44)
    with pytest.raises(ValueError, match=r"20, 28, 36, 44, \.\.\. pixels, got 32"):
        e2e_network(image_size=32)
    encode, decode = conditional_network(moments=True)
    assert encode(images, labels).shape == (4, 32)
    assert decode(torch.randn(4, 16), labels).shape == (4, 1, 28, 28)
    make, judge = dcgan_network()
    assert judge(make(torch.randn(4, 64), labels), labels).shape == (4, 1)
