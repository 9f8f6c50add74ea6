"""Papers that more than one family of attacks comes from, each typed once."""

from __future__ import annotations

from bench.api import Paper

__all__ = ["DATABENCH", "TRAMER"]

DATABENCH = Paper(
    title="DATABench: Evaluating Dataset Auditing in Deep Learning from an Adversarial Perspective",
    authors="S. Shao, Y. Li, M. Zheng, Z. Hu, Y. Chen, B. Li, Y. He, J. Guo, T. Zhang, D. Tao, Z. Qin",
    year=2025,
    link="https://arxiv.org/abs/2507.05622",
    code="https://github.com/shaoshuo-ss/DATABench",
)
TRAMER = Paper(
    title="Stealing Machine Learning Models via Prediction APIs",
    authors="F. Tramèr, F. Zhang, A. Juels, M. K. Reiter, T. Ristenpart",
    year=2016,
    link="https://arxiv.org/abs/1609.02943",
    code="https://github.com/ftramer/Steal-ML",
)
