"""SimpleShot (Wang, Chao, Weinberger and van der Maaten 2019, https://arxiv.org/abs/1911.04623).

    training      L = -log softmax_y(W' f(x)) over all training classes           (equation 1)
    test          the nearest class mean of f (UN), f / |f| (L2N) or (f - m) / |f - m| (CL2N)      (section 2.1)

m is the mean of f over all training images, without augmentation. It is computed at each validation and at the end of
the training, and a checkpoint keeps it. Deviation: the paper selects its model by the cosine to class means, which is
L2N at one shot; here validation measures what the test measures.
"""

from __future__ import annotations

from .baseline import LinearClassifier


class SimpleShot(LinearClassifier):
    """Train a linear classifier, and at test compare transformed features with class means."""
