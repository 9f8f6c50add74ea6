"""Papers that more than one scheme or attack comes from, each typed once."""

from __future__ import annotations

from bench.contract.fields import Paper

__all__ = ["ANW", "DEEPSTAMP", "DEKEL", "HAN", "SOK", "UCHIDA", "ZHANG"]

UCHIDA = Paper(
    title="Embedding Watermarks into Deep Neural Networks",
    authors="Y. Uchida, Y. Nagai, S. Sakazawa, S. Satoh",
    year=2017,
    link="https://arxiv.org/abs/1701.04082",
    code="https://github.com/yu4u/dnn-watermark",
)
ZHANG = Paper(
    title="Protecting Intellectual Property of Deep Neural Networks with Watermarking",
    authors="J. Zhang, Z. Gu, J. Jang, H. Wu, M. P. Stoecklin, H. Huang, I. Molloy",
    year=2018,
    link="https://doi.org/10.1145/3196494.3196550",
)
DEEPSTAMP = Paper(
    title="On the Feasibility of Training Neural Networks with Visibly Watermarked Dataset",
    authors="S. Hong, T. Kim, T. Dumitras, J. Choi",
    year=2019,
    link="https://arxiv.org/abs/1902.10854",
    code="https://github.com/Sanghyun-Hong/DeepStamp",
)
ANW = Paper(
    title="Anti-Neuron Watermarking: Protecting Personal Data Against Unauthorized Neural Networks",
    authors="Z. Zou, B. Gong, L. Wang",
    year=2022,
    link="https://arxiv.org/abs/2109.09023",
    code="https://github.com/zzzucf/anti-neuron-watermarking",
)
DEKEL = Paper(
    title="On the Effectiveness of Visible Watermarks",
    authors="T. Dekel, M. Rubinstein, C. Liu, W. T. Freeman",
    year=2017,
    link="https://openaccess.thecvf.com/content_cvpr_2017/html/Dekel_On_the_Effectiveness_CVPR_2017_paper.html",
)
HAN = Paper(
    title="Learning both Weights and Connections for Efficient Neural Networks",
    authors="S. Han, J. Pool, J. Tran, W. J. Dally",
    year=2015,
    link="https://arxiv.org/abs/1506.02626",
)
SOK = Paper(
    title="SoK: How Robust is Image Classification Deep Neural Network Watermarking?",
    authors="N. Lukas, E. Jiang, X. Li, F. Kerschbaum",
    year=2022,
    link="https://arxiv.org/abs/2108.04974",
    code="https://github.com/dnn-security/Watermark-Robustness-Toolbox",
)
