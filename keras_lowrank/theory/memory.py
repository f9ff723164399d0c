"""What a weight matrix keeps of its past, momentum included."""

import numpy as np

MOMENTUM_KINDS = (
    "torch",
    "torch_decoupled",
    "keras_coupled",
    "keras_decoupled",
)


def memory(
    learning_rates,
    weight_decay,
    momentum: float = 0.0,
    kind: str = "torch",
    nesterov: bool = False,
    steps: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """How much of weights and velocity of `n` steps ago is left now.

    Unrolled over the last `n` steps, and for any gradients,

        W[T] = p[n] W[T - n] + q[n] v[T - n] + U[n],

    where `v` is the velocity that the optimizer keeps and `U[n]` a sum of the
    gradients of those steps, of rank `uses * n * batch_size` at most. Without
    momentum, `q` is 0 and `p[n]` is `exp(-(tau[T] - tau[T - n]))`.

    | kind                | a step                                           |
    |---------------------|--------------------------------------------------|
    | `"torch"`           | `v = momentum v + G + w W; W = W - lr v`         |
    | `"torch_decoupled"` | `v = momentum v + G; W = (1 - lr w) W - lr v`    |
    | `"keras_coupled"`   | `v = momentum v - lr (G + w W); W = W + v`       |
    | `"keras_decoupled"` | `v = momentum v - lr G; W = (1 - lr w) W + v`    |

    The first is `torch.optim.SGD`, or `TorchSGD` with a coupled
    `WeightDecay`, the second with a decoupled one; the third is Keras' `SGD`
    with `L2(w / 2)` or a coupled `WeightDecay`, the fourth with its own
    `weight_decay` or a decoupled one.

    Args:
        learning_rates: Array of shape `(T,)`, one for each step.
        weight_decay: Float >= 0, `w`, or an array of one for each step, in
            the convention of torch and Keras.
        momentum: Float in [0, 1).
        kind: String, one of the kinds above; without momentum all are one.
        nesterov: Boolean, whether the step looks ahead, as each optimizer
            does it.
        steps: Int, the largest `n`; `T` by default.

    Returns:
        Tuple of the float64 arrays `p` and `q` of shape `(steps + 1,)`.

    Raises:
        ValueError: for an unknown kind or a value out of range.

    Example:

    >>> p, q = memory([0.1] * 3, weight_decay=0.5, momentum=0.9)
    >>> p.round(4), q.round(4)
    (array([1.    , 0.95  , 0.8575, 0.7314]), array([ 0.    , -0.09  , -0.1665, -0.227 ]))

    Reference:
        [Galanti et al., CPAL 2025](https://arxiv.org/abs/2206.05794), the
        unrolled step before Lemma 3.2, there without momentum.
    """  # noqa: E501
    if kind not in MOMENTUM_KINDS:
        raise ValueError(
            f"`kind` must be one of {MOMENTUM_KINDS}. Received: kind={kind!r}."
        )
    if not 0 <= momentum < 1:
        raise ValueError(
            "`momentum` must be from 0 on, and below 1. "
            f"Received: momentum={momentum}."
        )
    rates = np.asarray(learning_rates, np.float64)
    count = len(rates) if steps is None else steps
    if not 0 <= count <= len(rates):
        raise ValueError(
            f"`steps` must be from 0 to {len(rates)}, the learning rates. "
            f"Received: steps={steps}."
        )
    decays = np.broadcast_to(np.asarray(weight_decay, float), rates.shape)
    first = len(rates) - count
    last, decays = rates[first:][::-1], decays[first:][::-1]  # newest first
    if not momentum:
        p = np.concatenate([[1.0], np.cumprod(1 - last * decays)])
        return p, np.zeros_like(p)
    p, q = np.empty(count + 1), np.empty(count + 1)
    p[0], q[0] = row = 1.0, 0.0
    for n, (rate, decay) in enumerate(zip(last, decays, strict=True), 1):
        (ww, wv), (vw, vv) = _step(
            float(rate), float(decay), momentum, kind, nesterov
        )
        row = row[0] * ww + row[1] * vw, row[0] * wv + row[1] * vv
        p[n], q[n] = row
    return p, q


def _step(rate, decay, momentum, kind, nesterov):
    """The matrix by which a step without gradient acts on `(W, v)`."""
    ahead = 1 + momentum if nesterov else 1.0
    kept = momentum**2 if nesterov else momentum
    if kind == "torch":
        return (1 - ahead * rate * decay, -rate * kept), (decay, momentum)
    if kind == "torch_decoupled":
        return (1 - rate * decay, -rate * kept), (0.0, momentum)
    if kind == "keras_coupled":
        return (
            (1 - ahead * rate * decay, kept),
            (-rate * decay, momentum),
        )
    return (1 - rate * decay, kept), (0.0, momentum)
