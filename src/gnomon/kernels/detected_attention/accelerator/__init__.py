"""DOTA's accelerator as a cycle-level simulator: what detection and its order of keys are worth, against dense."""

from gnomon.kernels.detected_attention.accelerator.design import Design, Layer
from gnomon.kernels.detected_attention.accelerator.simulate import Simulation, compare, simulate

__all__ = ["Design", "Layer", "Simulation", "compare", "simulate"]
