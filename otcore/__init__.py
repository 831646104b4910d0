"""otcore: optimal transport for PyTorch, with gradients and honest convergence reports."""

from .bounds import Bounds
from .functional import sinkhorn, sinkhorn_divergence
from .kernel_loss import maximum_mean_discrepancy
from .line import wasserstein_1d
from .modules import SamplesLoss, SinkhornDivergence, SlicedWasserstein
from .sliced import SlicedSolution, sliced_wasserstein_distance
from .sliced_max import MaxSlicedSolution, max_sliced_wasserstein_distance
from .sliced_prior import GaussianPrior, UniformBall, sliced_wasserstein_to_prior
from .sliced_sphere import sliced_wasserstein_sphere
from .solution import ConvergenceWarning, Potentials, Solution, Status

__version__ = "0.1.0"

__all__ = [
    "Bounds",
    "ConvergenceWarning",
    "GaussianPrior",
    "MaxSlicedSolution",
    "Potentials",
    "SamplesLoss",
    "SinkhornDivergence",
    "SlicedSolution",
    "SlicedWasserstein",
    "Solution",
    "Status",
    "UniformBall",
    "__version__",
    "max_sliced_wasserstein_distance",
    "maximum_mean_discrepancy",
    "sinkhorn",
    "sinkhorn_divergence",
    "sliced_wasserstein_distance",
    "sliced_wasserstein_sphere",
    "sliced_wasserstein_to_prior",
    "wasserstein_1d",
]
