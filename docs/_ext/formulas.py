"""Formulas of the reference, by the names that users write.

`sigma_i` are the singular values of `W`, of shape `(m, n)`, largest first.
"""

_NUCLEAR = r"\|W\|_* = \sum_i \sigma_i"
_SCHATTEN = r"\|W\|_{S_p} = \Big(\sum_i \sigma_i^p\Big)^{1/p}"
_STABLE = r"\frac{\|W\|_F^2}{\|W\|_2^2} = \frac{\sum_i \sigma_i^2}{\sigma_1^2}"
_EFFECTIVE = (
    r"\exp\Big(-\sum_i p_i \log p_i\Big), "
    r"\qquad p_i = \frac{\sigma_i}{\sum_j \sigma_j}"
)
_LOG_DET = (
    r"\log\det\big(I + W W^\top / \epsilon^2\big) "
    r"= \sum_i \log\big(1 + (\sigma_i / \epsilon)^2\big)"
)

FORMULAS = {
    "numerical_rank": r"\#\{i : \sigma_i > \mathrm{tolerance} \cdot \|W\|_F\}",
    "stable_rank": _STABLE,
    "effective_rank": _EFFECTIVE,
    "participation_ratio": (
        r"\frac{\big(\sum_i \sigma_i^2\big)^2}{\sum_i \sigma_i^4}"
    ),
    "energy_rank": (
        r"\min\Big\{k : \sum_{i \le k} \sigma_i^2 "
        r"\ge \mathrm{energy} \cdot \|W\|_F^2\Big\}"
    ),
    "marchenko_pastur_count": (
        r"\#\big\{i : \sigma_i > s\,(\sqrt{m} + \sqrt{n})\big\}"
    ),
    "nuclear_norm": _NUCLEAR,
    "frobenius_norm": r"\|W\|_F = \Big(\sum_i \sigma_i^2\Big)^{1/2}",
    "spectral_norm": r"\|W\|_2 = \sigma_1",
    "schatten_norm": _SCHATTEN,
    "condition_number": r"\sigma_1 / \sigma_{\min(m, n)}",
    "spectral_gap": r"(\sigma_k - \sigma_{k+1}) / \sigma_1, \qquad k = "
    r"\mathrm{index}",
    "log_det": _LOG_DET,
    "NuclearNorm": rf"\mathrm{{strength}} \cdot {_NUCLEAR}",
    "SchattenNorm": rf"\mathrm{{strength}} \cdot {_SCHATTEN}",
    "SpectralNorm": r"\mathrm{strength} \cdot \sigma_1",
    "StableRank": rf"\mathrm{{strength}} \cdot {_STABLE}",
    "EffectiveRank": rf"\mathrm{{strength}} \cdot {_EFFECTIVE}",
    "LogDet": rf"\mathrm{{strength}} \cdot {_LOG_DET}",
    "SquaredFrobeniusNorm": (
        r"\mathrm{strength} \cdot \|W\|_F^2, \qquad "
        r"\nabla = 2 \cdot \mathrm{strength} \cdot W"
    ),
    "SingularValueThreshold": (
        r"W \leftarrow U\,\mathrm{diag}\big(\max(\sigma_i - \eta\,"
        r"\mathrm{threshold}, 0)\big)\,V^\top"
    ),
    "decay_clock": r"\tau_T = -\sum_{t < T} \log(1 - \mu_t w_t)",
    "closed_form_rank": (r"\frac{m_l\,B \log(2 / \varepsilon)}{2 \mu \lambda}"),
    "distance_to_rank": (
        r"\min_{\mathrm{rank}(V) \le r} \frac{\|W - V\|_F}{\|W\|_F} "
        r"= \bigg(\frac{\sum_{i > r} \sigma_i^2}{\sum_i \sigma_i^2}"
        r"\bigg)^{1/2}"
    ),
    "epsilon_rank": (
        r"\min\{r : \min_{\mathrm{rank}(V) \le r} \|W - V\| "
        r"\le \varepsilon \|W\|\}"
    ),
    "Window": (
        r"\min_{\mathrm{rank}(V) \le m_l B n} "
        r"\Big\|\frac{W_T}{\|W_T\|} - V\Big\| \le "
        r"e^{-(\tau_T - \tau_{T-n})} \frac{\|W_{T-n}\|}{\|W_T\|}"
    ),
    "gradient_spectra": (r"\mathrm{rank}\,\nabla_W \le \min(m_l B, m, n)"),
    "theory.memory_steps": r"\frac{1 - \beta}{\mu w}",
    "theory.stationary_distance": (
        r"\frac{\|W_{t+1} - W_t\|}{\mu\, w\, \|W_t\|}"
    ),
}
