"""Training: the losses fall, terms have names and weights, and a broken term is named."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from otcore_ae import SAE, SWAE, Flower, GlobalSAE, MinibatchGlobalSAE, Normal, Transport
from otcore_ae.data import ImageSet, MNISTData
from otcore_ae.history import History
from otcore_ae.metrics import global_ot
from otcore_ae.models import NonFiniteLossError, Step
from otcore_ae.networks import mlp
from tests.otcore_ae.mnist import MNIST, needs_mnist

MODELS = [SAE, MinibatchGlobalSAE, GlobalSAE]


@pytest.mark.parametrize("kind", MODELS)
def test_a_short_training_lowers_both_terms(kind, tiny_model, tiny_data, trainer) -> None:
    model, history = tiny_model(kind, learning_rate=5e-3), History()
    trainer(max_epochs=12, callbacks=[history]).fit(model, tiny_data())
    for name in ("train/reconstruction", "train/latent", "train/loss", "val/global_ot", "val/reconstruction"):
        curve = history.curves[name]
        assert curve.epochs == list(range(1, 13))
        assert curve.values[-1] < 0.8 * curve.values[0], name


@pytest.mark.parametrize("kind", MODELS)
def test_the_loss_is_the_weighted_sum_of_the_logged_terms(kind, tiny_model, tiny_data, trainer) -> None:
    def size(step: Step) -> torch.Tensor:
        return step.latents.square().mean()

    model = tiny_model(kind, latent_weight=0.3, extra_terms={"size": size}, weights={"size": 0.25})
    history = History()
    trainer(max_epochs=1, callbacks=[history]).fit(model, tiny_data())
    logged = {name: curve.values[0] for name, curve in history.curves.items()}
    expected = logged["train/reconstruction"] + 0.3 * logged["train/latent"] + 0.25 * logged["train/size"]
    assert logged["train/loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("cloud_size", "weight"), [(None, 60 / 600), (30, 30 / 600), (500, 60 / 600)])
def test_the_global_weight_follows_the_cloud(cloud_size, weight, tiny_model, tiny_data, trainer) -> None:
    model = tiny_model(MinibatchGlobalSAE, cloud_size=cloud_size)
    trainer(max_steps=1).fit(model, tiny_data())
    assert model.weight_of("latent") == pytest.approx(weight)


def test_published_weights(tiny_model) -> None:
    assert tiny_model(SAE).weight_of("latent") == tiny_model(GlobalSAE).default_weight(60_000) == 0.1
    assert tiny_model(SAE).weight_of("reconstruction") == 1


def test_a_term_that_is_not_finite_is_named(tiny_model, tiny_data, trainer) -> None:
    model = tiny_model(SAE, extra_terms={"sly": lambda step: step.latents.sum() * float("nan")})
    with pytest.raises(NonFiniteLossError, match=r"epoch 0, step 0, batch 0: .*sly = nan"):
        trainer(max_epochs=1).fit(model, tiny_data())


def test_a_weight_without_a_term_is_refused(tiny_model, tiny_data, trainer) -> None:
    model = tiny_model(SAE, weights={"sparsity": 1.0})
    with pytest.raises(ValueError, match=r"unknown terms \['sparsity'\]; the terms are \['latent', 'recon"):
        trainer(max_epochs=1).fit(model, tiny_data())


def test_the_global_model_needs_all_images(tiny_model, tiny_data, trainer) -> None:
    data = tiny_data()
    data.setup()
    batches = list(data.train_dataloader())
    with pytest.raises(ValueError, match=r"train_dataloader\.data\.images, which list lacks"):
        trainer(max_epochs=1).fit(tiny_model(MinibatchGlobalSAE), batches)


def test_the_cloud_is_encoded_as_in_evaluation(tiny_model, tiny_data, trainer) -> None:
    model = tiny_model(MinibatchGlobalSAE)
    norm = torch.nn.BatchNorm1d(2)
    model.encoder.append(norm)
    trainer(max_epochs=1).fit(model, tiny_data())
    assert norm.num_batches_tracked == 3


@pytest.mark.parametrize("cloud_size", [None, 40])
def test_the_full_gradient_is_that_of_the_whole_cloud(cloud_size, tiny_model, tiny_data, trainer) -> None:
    """Chunked and re-encoded, against one encoding of everything that keeps its activations."""
    model = tiny_model(GlobalSAE, cloud_size=cloud_size)
    data = tiny_data()
    trainer(max_steps=1).fit(model, data)  # gives it the training images
    batch = next(iter(data.train_dataloader()))
    subsets = model.cache.generator.get_state()
    prior = model.prior_generator.get_state()
    model.zero_grad()
    model.terms(model.step_of(batch))["latent"].backward()
    found = [p.grad.clone() for p in model.encoder.parameters()]
    model.zero_grad()
    rows = torch.arange(60)
    if cloud_size is not None:
        free = rows[~torch.isin(rows, batch.rows)]
        others = free[torch.randperm(40, generator=torch.Generator().set_state(subsets))[:20]]
        rows = torch.cat([batch.rows, others])
    cloud = model.encode(data.train_set.images[rows])
    sample = model.prior(len(rows), torch.Generator().set_state(prior))
    Transport()(cloud, sample).backward()
    for own, parameter in zip(found, model.encoder.parameters(), strict=True):
        assert torch.allclose(own, parameter.grad, rtol=1e-3, atol=1e-6)
        assert own.abs().sum() > 0


def test_full_and_minibatch_global_see_the_same_divergence(tiny_model, tiny_data, trainer) -> None:
    values = []
    for kind in (GlobalSAE, MinibatchGlobalSAE):
        model, history = tiny_model(kind), History()
        trainer(max_steps=1, callbacks=[history]).fit(model, tiny_data())
        values.append(history.curves["train/latent"].values[0])
    assert values[0] == pytest.approx(values[1], rel=1e-6)


@needs_mnist
def test_global_minibatch_converges_from_random_weights(trainer) -> None:
    """Warm-started, the latents of 2000 digits are within .2 of the prior after 300 steps."""

    class Few(MNISTData):
        def load(self) -> tuple[ImageSet, ImageSet]:
            train, test = super().load()
            return ImageSet(train.images[:2000], train.labels[:2000]), ImageSet(*(t[:1000] for t in test))

    torch.manual_seed(0)
    data = Few(MNIST)
    model = MinibatchGlobalSAE(*mlp(), Flower(), warm_start=True, resample_every=10)
    trainer(max_steps=300, limit_val_batches=0).fit(model, data)
    with torch.no_grad():
        latents = model.encode(data.train_set.images)
    assert global_ot(latents, Flower(), generator=torch.Generator().manual_seed(1)) < 0.2
    assert model.cache.duals is not None


def test_a_cloud_smaller_than_the_batch_is_refused(tiny_model, tiny_data, trainer) -> None:
    with pytest.raises(ValueError, match="cloud_size=5 is smaller than the batch of 20"):
        trainer(max_steps=1).fit(tiny_model(MinibatchGlobalSAE, cloud_size=5), tiny_data())


def test_images_without_labels_have_no_clustering_metrics(tiny_model, tiny_data, trainer) -> None:
    data = tiny_data()
    data.setup()
    images = DataLoader(list(data.test_set.images.split(10)), batch_size=None)
    (found,) = trainer().test(tiny_model(SAE), images, verbose=False)
    assert set(found) == {"test/reconstruction", "test/global_ot", "test/covered_area"}


def test_the_learning_rate_decays(tiny_model, tiny_data, trainer) -> None:
    for kind in (SAE, SWAE):
        built = trainer(max_epochs=3)
        built.fit(tiny_model(kind, learning_rate=1e-3, learning_rate_decay=0.5), tiny_data())
        (optimiser,) = built.optimizers
        assert optimiser.param_groups[0]["lr"] == pytest.approx(1e-3 / 8)


def test_any_loader_of_images_and_labels_will_do(tiny_model, tiny_data, trainer) -> None:
    """The same batches as tuples, as torch's DataLoader serves them, train the same weights."""
    data = tiny_data()
    data.setup()

    def weights(batches: list[object]) -> torch.Tensor:
        model = tiny_model(SAE)
        trainer(max_epochs=1).fit(model, DataLoader(batches, batch_size=None))
        return torch.nn.utils.parameters_to_vector(model.parameters())

    served = list(data.train_dataloader())
    ours = weights(served)
    assert torch.equal(ours, weights([(batch.images, batch.labels) for batch in served]))
    assert torch.equal(ours, weights([batch.images for batch in served]))


def test_test_metrics_and_samples(tiny_model, tiny_data, trainer) -> None:
    model = tiny_model(SAE, prior=Normal())
    (metrics,) = trainer().test(model, tiny_data(), verbose=False)
    assert set(metrics) == {"test/reconstruction", "test/global_ot", "test/local_clustering"}
    images = model.sample(6, torch.Generator().manual_seed(0))
    assert images.shape == (6, 1, 4, 4)
    assert torch.equal(images, model.sample(6, torch.Generator().manual_seed(0)))


def test_same_seed_same_weights(tiny_model, tiny_data, trainer) -> None:
    def run(seed: int) -> torch.Tensor:
        model = tiny_model(SAE, seed=seed, prior=Flower(stratified=False))
        trainer(max_epochs=2).fit(model, tiny_data())
        return torch.nn.utils.parameters_to_vector(model.parameters())

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))
