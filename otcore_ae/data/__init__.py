"""Data sets held in memory, and the loader that serves them in a reproducible, resumable order."""

from __future__ import annotations

from otcore_ae.data.augment import HandwritingStyle
from otcore_ae.data.calorimeter import CalorimeterData, SyntheticCalorimeterData
from otcore_ae.data.digits import DigitsData
from otcore_ae.data.loader import Batch, ImageSet, InMemoryLoader
from otcore_ae.data.mnist import MNISTData

__all__ = [
    "Batch",
    "CalorimeterData",
    "DigitsData",
    "HandwritingStyle",
    "ImageSet",
    "InMemoryLoader",
    "MNISTData",
    "SyntheticCalorimeterData",
]
