"""What a variable is to its layer: kernel, bias, normalization."""

import re

# Told by name where Keras gives one, since shapes mislead: the bias of a
# `MultiHeadAttention` has two axes.
_BY_NAME = (
    (
        "normalization",
        r"gamma|beta|scale|(moving|renorm)_(mean|variance|stddev)",
    ),
    ("bias", r"(.*_)?bias(es)?"),
    ("embedding", r".*embedding.*"),
    ("kernel", r"(.*_)?kernel(_[ab])?"),
    ("vector", r"alpha"),
)

ROLES = tuple(role for role, _ in _BY_NAME)


def role_of(variable) -> str:
    """What a variable is to its layer, told from the variable alone.

    The name decides. A name that no Keras layer uses is a kernel if the
    variable has two axes or more, and a vector otherwise.

    | role              | variables                                          |
    |-------------------|----------------------------------------------------|
    | `"kernel"`        | kernels, also depthwise, recurrent and LoRA ones   |
    | `"bias"`          | biases, of any shape                               |
    | `"normalization"` | `gamma`, `beta`, `scale`, moving statistics        |
    | `"embedding"`     | tables of `Embedding`, also positional ones        |
    | `"vector"`        | slopes of `PReLU`, and what else has under two axes |

    Args:
        variable: `keras.Variable`.

    Returns:
        String, one of the roles above.

    Example:

    >>> layer = keras.layers.BatchNormalization()
    >>> layer.build((None, 3))
    >>> role_of(layer.gamma)
    'normalization'
    """
    name = variable.name.split("/")[-1].split(":")[0]
    for role, pattern in _BY_NAME:
        if re.fullmatch(pattern, name):
            return role
    return "kernel" if len(variable.shape) >= 2 else "vector"
