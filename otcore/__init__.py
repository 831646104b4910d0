"""otcore: optimal transport for PyTorch, with gradients and honest convergence reports."""

from .bounds import Bounds
from .functional import sinkhorn, sinkhorn_divergence
from .kernel_loss import maximum_mean_discrepancy
from .modules import SamplesLoss, SinkhornDivergence
from .solution import ConvergenceWarning, Potentials, Solution, Status

__version__ = "0.1.0"

__all__ = [
    "Bounds",
    "ConvergenceWarning",
    "Potentials",
    "SamplesLoss",
    "SinkhornDivergence",
    "Solution",
    "Status",
    "__version__",
    "maximum_mean_discrepancy",
    "sinkhorn",
    "sinkhorn_divergence",
]
