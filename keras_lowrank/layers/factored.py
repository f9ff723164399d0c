"""What all low-rank layers are: two of Keras' layers, one after the other."""

import functools
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lowrank.linalg import Product
from keras_lowrank.linalg import eagerly
from keras_lowrank.linalg import host_array
from keras_lowrank.linalg import squared_norm_of_product
from keras_lowrank.linalg import truncate
from keras_lowrank.matricize import Factored
from keras_lowrank.matricize import Matricization
from keras_lowrank.matricize import register_factored

# What a full layer may have that its factors take no part in.
_NOT_CARRIED = (
    "groups",
    "gptq_unpacked_column_size",
    "lora_alpha",
    "lora_rank",
    "quantization_config",
)


class FactoredLayer(keras.layers.Layer):
    """Base of the low-rank layers: what they share, whatever they multiply.

    A low-rank layer is two layers of Keras: `reduce` maps its input to `rank`
    features, `expand` maps these to its output. Dtype policies, masks,
    quantization, LoRA and saving are therefore Keras' own. A subclass says
    which two layers, and how their kernels make one.

    Args:
        rank: Int >= 1, the rank of the kernel.
        kernel_initializer: Initializer of the *full* kernel, whose best
            approximation of rank `rank` the factors start from.
        kernel_regularizer: Regularizer of the *full* kernel, the product.
        lora_rank: Int, the rank of LoRA in each factor, or `None`.
        lora_alpha: Int, scale of LoRA, as in Keras; `lora_rank` by default.
        factor_dtypes: Two dtype policies, of `reduce` and of `expand`, where
            they are not that of the layer. `get_config` says so after
            `quantize`.
        **kwargs: Of `keras.layers.Layer`.
    """

    #: The layer of Keras that this one stands for.
    full_class: type[keras.layers.Layer]
    #: What that layer calls its kernel.
    kernel_name = "kernel"
    #: The ways to factor it, where there are several.
    schemes: tuple[str, ...] = ()

    def __init__(
        self,
        rank,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        lora_rank=None,
        lora_alpha=None,
        factor_dtypes=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
            raise ValueError(
                "`rank` must be a whole number from 1 on. "
                f"Received: rank={rank!r} (of type {type(rank).__name__})."
            )
        self.rank = rank
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.lora_rank = lora_rank
        self.lora_alpha = lora_rank if lora_alpha is None else lora_alpha
        self.factor_dtypes = factor_dtypes
        self.kernel_shape: tuple[int, ...] | None = None
        self.reduce: Any = None
        self.expand: Any = None
        self._start: Product | None = None  # given by `from_layer`

    # What a subclass says ---------------------------------------------------

    def full_shape(self, input_shape) -> tuple[int, ...]:
        """Shape of the kernel that the factors make."""
        raise NotImplementedError

    def factorization(self, shape) -> Matricization:
        """Rows and columns of the kernel that is factored, of `shape`."""
        raise NotImplementedError

    def make_factors(self, input_shape, initializers, dtypes) -> tuple:
        """The layers `reduce` and `expand`, not built yet."""
        raise NotImplementedError

    def split(self, product: Product, shape) -> tuple[np.ndarray, np.ndarray]:
        """The kernels of `reduce` and `expand` from two matrices."""
        raise NotImplementedError

    def matrices(self, reduce, expand, xp) -> tuple[Any, Any]:
        """The two matrices from the kernels: the reverse of `split`.

        Args:
            reduce: Kernel of `reduce`, NumPy array or tensor.
            expand: Kernel of `expand`.
            xp: What to compute with, `numpy` or `keras.ops`.

        Returns:
            Tuple of shapes `(m, r)` and `(r, n)`, or of stacks of these.
        """
        raise NotImplementedError

    def vectors(self, inputs) -> Any:
        """What the left matrix multiplies, of the inputs of a call.

        Args:
            inputs: Tensor, the input of the layer.

        Returns:
            Tensor of shape `(n, m)`, or `(b, n, m)` for diagonal blocks.

        Raises:
            NotImplementedError: for layers that look rows up.
        """
        raise NotImplementedError(
            f"{self.full_class.__name__} looks up the rows of its table and "
            "multiplies no vectors."
        )

    @property
    def product_equation(self) -> str:
        """Einsum equation that makes the kernel of those of the factors."""
        raise NotImplementedError

    def matricization(self, shape) -> Matricization:
        """How the kernel is measured: as that of the full layer."""
        return self.factorization(shape)

    def join(self, reduce: np.ndarray, expand: np.ndarray) -> Product:
        """The two matrices whose product is measured."""
        return Product(*self.matrices(reduce, expand, np))

    def full_initializer(self, shape):
        """What draws the full kernel."""
        return self.kernel_initializer

    @staticmethod
    def shape_of_inputs(layer):
        """What a full layer was built for, or `None` if it does not say."""
        return (layer.get_build_config() or {}).get("input_shape")

    # What follows from it ---------------------------------------------------

    def build(self, input_shape):
        """Create the factors.

        Args:
            input_shape: Tuple of ints, that of the full layer.
        """
        shape = tuple(self.full_shape(input_shape))
        how = self.factorization(shape)
        largest = min(_block_shape(how, shape))
        if self.rank > largest:
            raise ValueError(
                "`rank` must be at most the smaller side of the matrix that "
                f"is factored. Received: rank={self.rank} for layer "
                f"'{self.name}' with a kernel of shape {shape}, "
                f"factored as {how.matrix_shape(shape)}. Use "
                f"rank={largest} or less, or "
                f"`keras.layers.{self.full_class.__name__}`."
            )
        dtypes = self.factor_dtypes or (self.dtype_policy, self.dtype_policy)
        drawn = _Drawn(self, shape)
        self.reduce, self.expand = self.make_factors(
            input_shape, (drawn.reduce, drawn.expand), dtypes
        )
        self.reduce.build(input_shape)
        self.expand.build(self.reduce.compute_output_shape(input_shape))
        self._start = None
        self.kernel_shape = shape
        if self.kernel_regularizer is not None:
            kernel = _variable(self.reduce)
            if kernel is not None:
                kernel.regularizer = _OfProduct(self)
        self.built = True
        if self.lora_rank:
            self.enable_lora(self.lora_rank, self.lora_alpha)

    def call(self, inputs):
        """Reduce, then expand."""
        return self.expand(self.reduce(inputs))

    def compute_output_shape(self, input_shape):
        """That of the full layer."""
        if self.built:
            reduce, expand = self.reduce, self.expand
        else:
            policy = self.dtype_policy
            reduce, expand = self.make_factors(
                input_shape, ("zeros", "zeros"), (policy, policy)
            )
        return expand.compute_output_shape(
            reduce.compute_output_shape(input_shape)
        )

    @property
    def kernel(self):
        """The kernel that the factors make, a tensor formed when asked."""
        if not self.built:
            raise AttributeError(
                "You must build the layer before accessing its kernel."
            )
        return self._multiply(
            getattr(self.reduce, _kernel_name(self.reduce)), self.expand.kernel
        )

    @property
    def factor_variables(self) -> tuple[Any, Any]:
        """The variables of the factors; `None` for one packed by quantizing."""
        return _variable(self.reduce), _variable(self.expand)

    def _multiply(self, reduce, expand):
        reduce, expand = (
            ops.convert_to_tensor(factor) for factor in (reduce, expand)
        )
        return ops.einsum(self.product_equation, reduce, expand)

    @property
    def bias(self):
        """The bias, which `expand` has."""
        return getattr(self.expand, "bias", None)

    @property
    def lora_enabled(self) -> bool:
        """Whether the factors have LoRA."""
        return bool(getattr(self.reduce, "lora_enabled", False))

    def enable_lora(self, rank, lora_alpha=None, **initializers):
        """Freeze the factors and give each a low-rank update, as Keras does.

        What is trained is then merged into the factors, so that the kernel
        keeps its rank; an update of the product would add to it.

        Args:
            rank: Int, smaller than the rank of the layer.
            lora_alpha: Int, the scale; `rank` by default.
            **initializers: `a_initializer` and `b_initializer`, as in Keras.
        """
        if not 1 <= rank < self.rank:
            raise ValueError(
                "The rank of LoRA must be smaller than that of the layer, or "
                "it would save nothing. Received: "
                f"rank={rank} for layer '{self.name}' of rank {self.rank}. "
                "Train the factors themselves instead."
            )
        for factor in (self.reduce, self.expand):
            factor.enable_lora(rank, lora_alpha=lora_alpha, **initializers)
        self.lora_rank = rank
        self.lora_alpha = rank if lora_alpha is None else lora_alpha

    def quantize(self, mode=None, type_check=True, config=None):
        """Quantize both factors.

        Args:
            mode: String, as for `keras.Model.quantize`.
            type_check: Boolean, as in Keras.
            config: Quantization config, as in Keras.
        """
        for factor in (self.reduce, self.expand):
            factor.quantize(mode, type_check=type_check, config=config)

    def get_config(self):
        """The arguments as plain values, for saving."""
        config = super().get_config()
        serialize = keras.saving.serialize_keras_object
        config |= {
            "rank": self.rank,
            f"{self.kernel_name}_initializer": serialize(
                self.kernel_initializer
            ),
            f"{self.kernel_name}_regularizer": serialize(
                self.kernel_regularizer
            ),
        }
        if self.lora_rank:
            config["lora_rank"] = self.lora_rank
            config["lora_alpha"] = self.lora_alpha
        dtypes = self.factor_dtypes
        if self.built:
            dtypes = [self.reduce.dtype_policy, self.expand.dtype_policy]
        if dtypes and any(dtype != self.dtype_policy for dtype in dtypes):
            config["factor_dtypes"] = [
                serialize(keras.dtype_policies.get(dtype)) for dtype in dtypes
            ]
        return config

    @classmethod
    def from_layer(cls, layer, rank, second_moment=None, **options):
        """The best approximation of a layer by one of lower rank.

        The kernel is truncated by its singular value decomposition and split
        evenly between the factors; the bias is copied. LoRA is merged first.
        At the largest rank the outputs are those of `layer`.

        Args:
            layer: Built layer of the class that this one stands for.
            rank: Int from 1 to the smaller side of the kernel's matrix.
            second_moment: Array of shape `(m, m)`, the second moments
                `E[x x^T]` of the `m` inputs of that matrix, to make the error
                of the outputs smallest rather than that of the kernel. See
                `keras_lowrank.linalg.truncate`.
            **options: What to change in the config of `layer`, such as its
                `name`; and of convolutions the `scheme`.

        Returns:
            A built layer, with the name and the settings of `layer`.

        Raises:
            TypeError: when `layer` is of another class.
            ValueError: when it is not built, is quantized or has a kernel
                constraint, or when `rank` is out of range.
        """
        reason = cls.reason_against(layer)
        if reason:
            kind = (
                TypeError if type(layer) is not cls.full_class else ValueError
            )
            raise kind(
                f"`{cls.__name__}.from_layer` takes a built "
                f"`keras.layers.{cls.full_class.__name__}`. Received: "
                f"{layer!r}, which {reason}."
            )
        new = cls.like(layer, rank, **options)
        kernel = host_array(getattr(layer, cls.kernel_name))
        how = new.factorization(kernel.shape)
        new._start = truncate(how.matrix(kernel), rank, second_moment)
        new.build(cls.shape_of_inputs(layer))
        if new.bias is not None:
            new.bias.assign(layer.bias)
        return new

    @classmethod
    def like(cls, layer, rank, **options):
        """A layer with the settings of a full one, not built yet.

        Args:
            layer: As for `from_layer`.
            rank: As for `from_layer`.
            **options: As for `from_layer`.
        """
        config = layer.get_config()
        for key in (*_NOT_CARRIED, f"{cls.kernel_name}_constraint"):
            config.pop(key, None)
        return cls.from_config(config | {"rank": rank} | options)

    @classmethod
    def reason_against(cls, layer) -> str:
        """Why a layer has no low-rank form, or an empty string."""
        if type(layer) is not cls.full_class:
            return f"is a {type(layer).__name__}"
        if not layer.built:
            return "is not built: call it or its model once"
        if layer.quantization_mode:
            return (
                f"is quantized to {layer.quantization_mode}: factor it first, "
                "and quantize the factors"
            )
        if getattr(layer, f"{cls.kernel_name}_constraint", None) is not None:
            return "has a kernel constraint, which a product cannot keep"
        if getattr(layer, "groups", 1) != 1:
            return "has groups, each of which is small already"
        if cls.shape_of_inputs(layer) is None:
            return "does not say which inputs it was built for"
        return ""


def _block_shape(how: Matricization, shape) -> tuple[int, int]:
    """Shape of one diagonal block of a kernel."""
    blocks = math.prod(shape[axis] for axis in how.blocks)
    rows, columns = how.matrix_shape(shape)
    return rows // blocks, columns // blocks


def _kernel_name(layer) -> str:
    return "embeddings" if hasattr(layer, "embeddings") else "kernel"


def _variable(layer):
    """The variable of a factor's kernel, or `None` once it is packed away."""
    for variable in layer.weights:
        if variable.name == _kernel_name(layer):
            return variable
    return None


class _Drawn:
    """Kernels of the factors, from one draw of the full kernel."""

    def __init__(self, layer, shape):
        self._layer = layer
        self._shape = tuple(shape)
        self._start = layer._start
        self._kernels: dict[int, np.ndarray] = {}
        self.reduce = functools.partial(self._kernel, 0)
        self.expand = functools.partial(self._kernel, 1)

    def _kernel(self, index, shape, dtype=None, **kwargs):
        if index not in self._kernels:
            layer = self._layer
            product = self._start
            if product is None:
                how = layer.factorization(self._shape)
                product = truncate(how.matrix(self._draw()), layer.rank)
            self._kernels |= enumerate(layer.split(product, self._shape))
        # Not kept longer than it is needed, once for each factor.
        kernel = self._kernels.pop(index)
        return ops.convert_to_tensor(kernel, dtype=dtype)

    def _draw(self) -> np.ndarray:
        with eagerly():
            drawn = self._layer.full_initializer(self._shape)(
                self._shape, dtype="float32"
            )
            return host_array(drawn)


class _OfProduct:
    """A regularizer of the product, told the value of its first factor.

    Keras asks the regularizer of each variable once a step, however often the
    layer is called.
    """

    def __init__(self, layer):
        self.layer = layer

    def __call__(self, reduce):
        layer = self.layer
        penalty = layer.kernel_regularizer
        expand = _variable(layer.expand)
        kernels = [ops.convert_to_tensor(kernel) for kernel in (reduce, expand)]
        left, right = layer.matrices(*kernels, ops)
        if isinstance(penalty, keras.regularizers.L2):
            # The same for any way to read the kernel.
            return penalty.l2 * squared_norm_of_product(left, right)
        of_product = getattr(penalty, "of_product", None)
        factored = layer.factorization(layer.kernel_shape)
        # A regularizer may say how it reads a kernel, or leave it to us.
        read = getattr(penalty, "matricization", None)
        if read is None:
            read = layer.matricization(layer.kernel_shape)
        alike = read.reads_as(factored, layer.kernel_shape)
        if of_product is None or not alike:
            return penalty(layer._multiply(*kernels))
        return of_product(left, right)


@register_factored(FactoredLayer)
def factored(layer) -> Factored | None:
    """The kernel as the full layer would have it."""
    if not layer.built:
        return None
    variables = layer.factor_variables
    if any(variable is None for variable in variables):
        return None
    how = layer.matricization(layer.kernel_shape)
    alike = how.reads_as(
        layer.factorization(layer.kernel_shape), layer.kernel_shape
    )
    return Factored(
        name=layer.kernel_name,
        factors=tuple(
            zip((layer.reduce, layer.expand), variables, strict=True)
        ),
        shape=layer.kernel_shape,
        matricization=how,
        join=layer.join,
        split=functools.partial(_split, layer) if alike else None,
        note=f"rank {layer.rank}",
    )


def _split(layer, product: Product) -> tuple[np.ndarray, np.ndarray]:
    return layer.split(product, layer.kernel_shape)
