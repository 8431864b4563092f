"""What an operator costs: floating-point operations and the least traffic to memory, from shapes alone.

Conventions, the same for every model:
- A multiply-add is 2 FLOP. An elementwise operator is 1 FLOP per output element, whether it adds or takes a tanh.
- Traffic is compulsory traffic: each input is read once at the size that it really has (a broadcast row is read as one
  row), each output is written once. Caches, tiling and re-reading are the business of a forecast.
- Views and empty allocations are free. Copies and fills cost bytes, no FLOP. A gather reads the rows that it takes,
  never the whole table.
- Causal or masked attention counts the full score matrix, as the plain matrix products would.
- Sorting counts comparisons: n log2 n of them.

An operator that is in no table here has flop None and category 'unknown', and its operands as traffic.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from gnomon.workload.graph import Category

# FLOP per element of the operators that torch runs as one kernel.
SOFTMAX = 5  # largest, subtract, exponential, sum, divide
SOFTMAX_BACKWARD = 4  # y * dy, its sum, subtract, multiply
STATISTICS = 4  # mean: 1 add; variance: subtract, square, add
NORMALIZE = 2  # subtract the mean, times the inverse deviation
AFFINE = 2  # times weight, plus bias
NORM_BACKWARD_INPUT = 10  # normalise again 2, weight 1, two sums 3, combine 4
NORM_BACKWARD_WEIGHT = 2  # multiply, add
NORM_BACKWARD_BIAS = 1  # add
DROPOUT = 2  # draw and compare, multiply
ADAM = 12  # two moving averages 3 + 4, bias corrections and root 3, update 2
ADAMW = ADAM + 1  # the decay
SGD = 4  # decay 2 (a multiply-add), momentum or step 2
INTERPOLATE: Mapping[str, int] = {"nearest": 0, "linear": 3, "bilinear": 8, "bicubic": 40, "trilinear": 18}


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor as a cost rule sees it. bytes: what it takes in memory, repeated (stride 0) elements counted once.

    nonzeros: stored values of a sparse matrix, None for a dense tensor.
    """

    shape: tuple[int, ...]
    bytes: int
    item_bytes: int
    nonzeros: int | None = None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Call:
    """One call: arguments by their name in the operator's schema (an Operand, a list of them, or a plain value).

    name: 'aten.mm' without the overload. written: names of the arguments that are written in place.
    """

    name: str
    arguments: Mapping[str, Any]
    outputs: tuple[Operand, ...]
    written: frozenset[str] = frozenset()

    def operand(self, *names: str) -> Operand:
        """The first argument of these names that is a tensor."""
        for name in names:
            if isinstance(value := self.arguments.get(name), Operand):
                return value
        raise KeyError(f"{self.name} has no tensor argument {' or '.join(names)}; it has {', '.join(self.arguments)}")

    def has(self, name: str) -> bool:
        return isinstance(self.arguments.get(name), Operand)

    def number(self, name: str, default: Any = None) -> Any:
        return self.arguments.get(name, default)

    @property
    def inputs(self) -> list[Operand]:
        return [operand for value in self.arguments.values() for operand in _operands(value)]

    @property
    def changed(self) -> list[Operand]:
        return [operand for name in sorted(self.written) for operand in _operands(self.arguments.get(name))]

    @property
    def size(self) -> int:
        """Elements of the first output, or of the first tensor that is changed."""
        made = self.outputs or tuple(self.changed)
        return made[0].elements if made else 0


class Cost(NamedTuple):
    category: Category
    flop: float | None
    read_bytes: float
    written_bytes: float


Rule = Callable[[Call], Cost]


def cost(call: Call) -> Cost:
    """FLOP and traffic of one call by the rule of its name; 'aten.add_' takes the rule of 'aten.add'."""
    name = call.name.removeprefix("aten.")
    rule = RULES.get(name) or RULES.get(name.removesuffix("_"))
    if rule is None:
        return Cost("unknown", None, *_traffic(call))
    category, flop, read, written = rule(call)
    return Cost(category, None if flop is None else float(flop), float(read), float(written))


def _operands(value: Any) -> Iterable[Operand]:
    if isinstance(value, Operand):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _operands(item)


def _traffic(call: Call) -> tuple[float, float]:
    """Every input once, every output once; in place, what is changed is written back."""
    written = call.changed if call.written else call.outputs
    return float(sum(o.bytes for o in call.inputs)), float(sum(o.bytes for o in written))


def _written(call: Call) -> float:
    return _traffic(call)[1]


# Elementwise work, reductions, copies ------------------------------------------------------------------------------


def _view(call: Call) -> Cost:
    return Cost("view", 0.0, 0.0, 0.0)


def _elementwise(call: Call) -> Cost:
    return Cost("elementwise", float(call.size), *_traffic(call))


def _foreach(call: Call) -> Cost:
    made = call.changed if call.written else call.outputs
    return Cost("elementwise", float(sum(o.elements for o in made)), *_traffic(call))


def _reduction(per_element: float) -> Rule:
    """`per_element` FLOP for each element that goes in."""

    def rule(call: Call) -> Cost:
        return Cost("reduction", per_element * call.inputs[0].elements, *_traffic(call))

    return rule


def _copy(call: Call) -> Cost:
    """Everything that is read is written somewhere else: cat, clone, a change of dtype."""
    written = _written(call)
    read = sum(o.bytes for o in call.inputs) - sum(o.bytes for o in call.changed)
    return Cost("copy", 0.0, float(max(read, 0)), written)


def _cut(call: Call) -> Cost:
    """Reads as many elements as it writes of an input that may be larger or smaller: flip, roll, pad, tril."""
    source = call.inputs[0]
    return Cost("copy", 0.0, float(min(source.bytes, _written(call))), _written(call))


def _fill(call: Call) -> Cost:
    """Writes a value that is not in memory: zeros, arange, fill_. The shape of a `*_like` argument is not read."""
    return Cost("copy", 0.0, 0.0, _written(call))


def _scalar(call: Call) -> Cost:
    return Cost("copy", 0.0, float(call.inputs[0].item_bytes), 0.0)


def _random(call: Call) -> Cost:
    return Cost("random", float(call.size), 0.0, _written(call))


def _draw_from(call: Call) -> Cost:
    return Cost("random", float(call.inputs[0].elements), *_traffic(call))


def _dropout(call: Call) -> Cost:
    return Cost("random", float(DROPOUT * call.size), *_traffic(call))


# Matrix products ---------------------------------------------------------------------------------------------------


def _product(call: Call, multiply_adds: float, extra: float = 0.0) -> Cost:
    return Cost("matmul", 2.0 * multiply_adds + extra, *_traffic(call))


def _matmul(first: str, second: str, bias: str | None = None) -> Rule:
    """Batched or plain (..., M, K) x (..., K, N), vectors included; a matrix that is added costs 1 per output."""

    def rule(call: Call) -> Cost:
        a, b = call.operand(first), call.operand(second)
        extra = float(call.outputs[0].elements) if bias is not None and call.has(bias) else 0.0
        if a.nonzeros is not None:
            return _product(call, a.nonzeros * (b.shape[-1] if len(b.shape) > 1 else 1), extra)
        if b.nonzeros is not None:
            return _product(call, b.nonzeros * a.shape[0], extra)
        return _product(call, call.outputs[0].elements * a.shape[-1], extra)

    return rule


def _linear(call: Call) -> Cost:
    """y = x A^T + b: the weight is (N, K), a vector (K,) gives one number per row."""
    extra = float(call.outputs[0].elements) if call.has("bias") else 0.0
    return _product(call, call.outputs[0].elements * call.operand("weight").shape[-1], extra)


def _sampled_product(call: Call) -> Cost:
    """Only the entries of a sparse pattern: out = beta * self + alpha * (mat1 @ mat2 where self is stored)."""
    return _product(call, float(call.operand("self").nonzeros or 0) * call.operand("mat1").shape[-1])


def _summed_products(call: Call) -> Cost:
    return _product(call, float(call.operand("batch1").elements * call.operand("batch2").shape[-1]), call.size)


def _grouped_product(call: Call) -> Cost:
    """Rows are divided among the groups, so each row meets one matrix; with two matrices the inner axis is divided."""
    a, b = call.operand("self", "mat_a"), call.operand("mat2", "mat_b")
    if len(b.shape) == 3 and len(a.shape) == 2:
        return _product(call, float(a.elements * b.shape[-1]))
    if len(a.shape) == 3 and len(b.shape) == 2:
        return _product(call, float(a.shape[-2] * b.elements))
    return _product(call, float(a.elements * b.shape[-1]))


def _outer(call: Call) -> Cost:
    return _product(call, float(call.size))


# Convolution -------------------------------------------------------------------------------------------------------


def _convolution_products(call: Call, output: Operand) -> float:
    """Multiply-adds of the forward convolution, whose weight is (out, in / groups, *kernel).

    Each output element takes in/groups * kernel products. Transposed, the weight is (in, out / groups, *kernel) and
    each input element gives out/groups * kernel of them.
    """
    weight = call.operand("weight")
    anchor = call.operand("input") if call.number("transposed", False) else output
    return float(anchor.elements * math.prod(weight.shape[1:]))


def _convolution(call: Call) -> Cost:
    output = call.outputs[0]
    bias = output.elements if call.has("bias") else 0
    return Cost("convolution", 2.0 * _convolution_products(call, output) + bias, *_traffic(call))


def _convolution_backward(call: Call) -> Cost:
    """Each of the two gradients that is asked for is a product as large as the forward one; the bias's is a sum."""
    gradient = call.operand("grad_output")
    wants_input, wants_weight, wants_bias = call.number("output_mask", [True, True, True])
    products = _convolution_products(call, gradient) * (bool(wants_input) + bool(wants_weight))
    read = gradient.bytes
    read += call.operand("weight").bytes if wants_input else 0
    read += call.operand("input").bytes if wants_weight else 0
    return Cost("convolution", 2.0 * products + (gradient.elements if wants_bias else 0), float(read), _written(call))


# Attention ---------------------------------------------------------------------------------------------------------


class _Attention(NamedTuple):
    scores: int  # B * H * L * S
    key_size: int
    value_size: int


def _attention_sizes(call: Call) -> _Attention:
    """query (B, H, L, D), key (B, Hk, S, D), value (B, Hk, S, Dv); with grouped queries Hk divides H."""
    q, k, v = call.operand("query"), call.operand("key"), call.operand("value")
    return _Attention(math.prod(q.shape[:-1]) * k.shape[-2], q.shape[-1], v.shape[-1])


def _attention(call: Call) -> Cost:
    """Scores Q K^T, their softmax, and P V."""
    a = _attention_sizes(call)
    return Cost("attention", float(a.scores * (2 * (a.key_size + a.value_size) + SOFTMAX)), *_traffic(call))


def _attention_backward(call: Call) -> Cost:
    """Five products: S = Q K^T again, dP = dO V^T, dV = P^T dO, dQ = dS K, dK = dS^T Q; softmax again, its gradient."""
    a = _attention_sizes(call)
    products = 2 * (3 * a.key_size + 2 * a.value_size)
    return Cost("attention", float(a.scores * (products + 2 + SOFTMAX_BACKWARD)), *_traffic(call))


# Softmax and normalization -----------------------------------------------------------------------------------------


def _per_element(category: Category, flop: float) -> Rule:
    def rule(call: Call) -> Cost:
        return Cost(category, flop * call.size, *_traffic(call))

    return rule


def _layer_norm(call: Call) -> Cost:
    flop = STATISTICS + NORMALIZE + (AFFINE if call.has("weight") else 0)
    return Cost("normalization", float(flop * call.operand("input").elements), *_traffic(call))


def _rms_norm(call: Call) -> Cost:
    """Square and sum, times the inverse root mean square, times weight."""
    return Cost("normalization", (4.0 if call.has("weight") else 3.0) * call.operand("input").elements, *_traffic(call))


def _batch_norm(call: Call) -> Cost:
    """With stored statistics it only normalises; else it takes them from the batch."""
    training = bool(call.number("training", call.number("train", "no_stats" not in call.name)))
    flop = (STATISTICS if training else 0) + NORMALIZE + (AFFINE if call.has("weight") else 0)
    return Cost("normalization", float(flop * call.operand("input").elements), *_traffic(call))


def _norm_backward(call: Call) -> Cost:
    wants_input, wants_weight, wants_bias = call.number("output_mask", [True, True, True])
    per_element = NORM_BACKWARD_INPUT * bool(wants_input)
    per_element += NORM_BACKWARD_WEIGHT * bool(wants_weight) + NORM_BACKWARD_BIAS * bool(wants_bias)
    return Cost("normalization", float(per_element * call.inputs[0].elements), *_traffic(call))


# Gather and scatter ------------------------------------------------------------------------------------------------


def _indices(call: Call) -> int:
    """Bytes of the index tensors of a call."""
    return sum(o.bytes for name in ("indices", "index") for o in _operands(call.arguments.get(name)))


def _gather(call: Call) -> Cost:
    """Reads the indices and as much of the table as comes out."""
    return Cost("gather", 0.0, float(_indices(call)) + _written(call), _written(call))


def _embedding_backward(call: Call) -> Cost:
    """Adds every row of the gradient into a dense table that is zeroed first."""
    gradient = call.operand("grad_output")
    return Cost("gather", float(gradient.elements), *_traffic(call))


def _scatter(adds: bool) -> Rule:
    """Puts `source` into rows of `self`. Out of place all of self is copied; in place only the rows are touched."""

    def rule(call: Call) -> Cost:
        target, index = call.operand("self"), _indices(call)
        sources = [o for key in ("source", "src", "values", "value") for o in _operands(call.arguments.get(key))]
        moved = sum(o.bytes for o in sources)
        adding = adds or bool(call.number("accumulate", False))
        elements = sum(o.elements for o in sources)
        rows = moved if adding else 0  # what is added to must be read
        if call.written:
            touched = elements * target.item_bytes or index
            return Cost("gather", float(elements * adding), float(moved + index + rows), float(touched))
        read = moved + index + target.bytes
        return Cost("gather", float(elements * adding), float(read), _written(call))

    return rule


def _embedding_bag(call: Call) -> Cost:
    rows = call.operand("indices").elements * call.operand("weight").shape[-1]
    read = _indices(call) + rows * call.operand("weight").item_bytes
    return Cost("gather", float(rows), float(read), _written(call))


# Pooling, interpolation, sorting -----------------------------------------------------------------------------------


def _window(call: Call) -> int:
    kernel = call.number("kernel_size") or [1]
    sizes = [kernel] if isinstance(kernel, int) else list(kernel)
    rank = 1 if "1d" in call.name else 3 if "3d" in call.name else 2
    return math.prod(sizes * rank if len(sizes) == 1 else sizes)


def _pool(call: Call) -> Cost:
    return Cost("pooling", float(call.size * _window(call)), *_traffic(call))


def _adaptive_pool(call: Call) -> Cost:
    return Cost("pooling", float(call.inputs[0].elements), *_traffic(call))


def _max_pool_backward(call: Call) -> Cost:
    """Adds each gradient at the place that won: reads gradients and indices, not the input."""
    gradient, places = call.operand("grad_output"), call.operand("indices")
    return Cost("pooling", float(gradient.elements), float(gradient.bytes + places.bytes), _written(call))


def _average_pool_backward(call: Call) -> Cost:
    """Spreads each gradient over its window; only the shape of the input is needed."""
    gradient = call.operand("grad_output")
    spread = float(gradient.elements * _window(call)) if "kernel_size" in call.arguments else float(call.size)
    return Cost("pooling", spread, float(gradient.bytes), _written(call))


def _interpolate(call: Call) -> Cost:
    kind = next(kind for kind in sorted(INTERPOLATE, key=len, reverse=True) if kind in call.name)
    return Cost("pooling", float(INTERPOLATE[kind] * max(call.size, call.inputs[0].elements)), *_traffic(call))


def _sort(call: Call) -> Cost:
    source = call.inputs[0]
    dim = call.number("dim", -1)
    length = source.shape[dim] if source.shape and isinstance(dim, int) else source.elements
    return Cost("sort", source.elements * math.log2(max(length, 2)), *_traffic(call))


def _select_best(call: Call) -> Cost:
    """topk and kthvalue: one comparison per element, as selection takes."""
    return Cost("sort", float(call.inputs[0].elements), *_traffic(call))


def _recurrent(passes: int) -> Rule:
    """Fused LSTM or GRU layer: input and recurrent products for every token; the gates' own arithmetic is 1 % of it."""

    def rule(call: Call) -> Cost:
        tokens = math.prod(call.operand("input").shape[:-1])
        named = [o for key, o in call.arguments.items() if key.startswith("weight") and isinstance(o, Operand)]
        return _product(call, float(passes * tokens * sum(o.elements for o in named if len(o.shape) == 2)))

    return rule


def _encoder_layer(call: Call) -> Cost:
    """Fused nn.MultiheadAttention or nn.TransformerEncoderLayer: every matrix meets every token; then the scores."""
    tokens = call.operand("src", "query")
    batch, length, width = tokens.shape
    heads = call.number("num_heads", call.number("num_head", 1))
    matrices = [o for o in call.inputs if len(o.shape) == 2]
    scores = batch * length * length
    return _product(
        call,
        float(batch * length * sum(o.elements for o in matrices) + 2 * scores * width),
        float(SOFTMAX * scores * heads),
    )


# Optimizers --------------------------------------------------------------------------------------------------------


def _fused(per_element: float) -> Rule:
    """One kernel for the whole update: reads what it gets, writes what it changes."""

    def rule(call: Call) -> Cost:
        elements = sum(o.elements for o in _operands(call.arguments["self"]))
        return Cost("optimizer", per_element * elements, *_traffic(call))

    return rule


# The table ---------------------------------------------------------------------------------------------------------


# fmt: off
def _table() -> dict[str, Rule]:
    """Names of aten operators without namespace, overload and the in-place underscore -> rule."""
    rules: dict[str, Rule] = {}

    def add(rule: Rule, names: str) -> None:
        rules.update(dict.fromkeys(names.split(), rule))

    add(_view, """
        view _unsafe_view view_as reshape _reshape_alias t transpose permute expand expand_as select slice unsqueeze
        squeeze detach alias as_strided split split_with_sizes unsafe_split unsafe_split_with_sizes chunk unsafe_chunk
        unbind diagonal unfold view_as_real view_as_complex real imag lift lift_fresh narrow movedim numpy_T mT mH
        swapaxes flatten unflatten resize set _nested_view_from_buffer conj _conj _neg_view values crow_indices
        col_indices ccol_indices row_indices indices _values _indices _sparse_csr_tensor_unsafe
        _sparse_compressed_tensor_unsafe is_same_size sym_size sym_stride sym_numel sym_storage_offset
        empty empty_like empty_strided new_empty new_empty_strided empty_permuted _efficientzerotensor
    """)
    add(_elementwise, """
        add sub rsub mul div true_divide floor_divide remainder fmod pow neg abs sign sgn reciprocal square sqrt rsqrt
        exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh erf erfc
        erfinv floor ceil round trunc frac clamp clamp_min clamp_max minimum maximum fmin fmax where masked_fill
        eq ne lt le gt ge isnan isinf isfinite logical_and logical_or logical_xor logical_not bitwise_and bitwise_or
        bitwise_xor bitwise_not bitwise_left_shift bitwise_right_shift __and__ __or__ __xor__ __lshift__ __rshift__
        relu relu6 hardtanh hardtanh_backward leaky_relu leaky_relu_backward elu elu_backward selu celu gelu
        gelu_backward silu silu_backward mish mish_backward sigmoid sigmoid_backward log_sigmoid_forward
        log_sigmoid_backward softplus softplus_backward hardswish hardswish_backward hardsigmoid hardsigmoid_backward
        tanh_backward threshold threshold_backward prelu _prelu_kernel _prelu_kernel_backward glu glu_backward
        lerp addcmul addcdiv polar complex nan_to_num logit hypot copysign sinc lgamma digamma xlogy logaddexp isin
        nll_loss_backward nll_loss2d_backward mse_loss_backward smooth_l1_loss_backward huber_loss_backward
        binary_cross_entropy_backward binary_cross_entropy_with_logits native_dropout_backward
    """)
    add(_reduction(1), """
        sum mean prod nansum max min amax amin aminmax argmax argmin any all cumsum cumprod cummax cummin logcumsumexp
        count_nonzero nll_loss_forward nll_loss2d_forward trace bincount histc equal is_nonzero
    """)
    add(_reduction(2), "norm linalg_vector_norm")
    add(_reduction(3), "logsumexp mse_loss l1_loss smooth_l1_loss huber_loss kl_div binary_cross_entropy")
    add(_reduction(STATISTICS), "var std var_mean std_mean")
    add(_copy, "clone copy _to_copy to contiguous cat stack repeat repeat_interleave _foreach_copy _copy_from")
    add(_cut, """
        flip roll constant_pad_nd tril triu reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d
        slice_backward select_backward slice_scatter select_scatter diagonal_backward diag_embed diag unfold_backward
        as_strided_scatter unfold_copy view_copy expand_copy permute_copy narrow_copy im2col col2im pixel_shuffle
        pixel_unshuffle channel_shuffle rot90 to_dense _to_dense
    """)
    add(_fill, """
        zeros ones full zeros_like ones_like full_like new_zeros new_ones new_full fill zero arange linspace logspace
        eye scalar_tensor tril_indices triu_indices _foreach_zero
    """)
    add(_scalar, "_local_scalar_dense item _linalg_check_errors")
    add(_random, """
        rand randn randint randperm rand_like randn_like randint_like uniform normal exponential geometric random
        bernoulli cauchy log_normal
    """)
    add(_draw_from, "multinomial")
    add(_dropout, "native_dropout")

    add(_matmul("self", "mat2"), "mm bmm _int_mm _weight_int8pack_mm _scaled_mm _sparse_mm")
    add(_matmul("mat1", "mat2", "self"), "addmm _addmm_activation sparse_addmm _sparse_addmm")
    add(_matmul("batch1", "batch2", "self"), "baddbmm")
    add(_matmul("self", "vec"), "mv")
    add(_matmul("mat", "vec", "self"), "addmv")
    add(_matmul("self", "tensor"), "dot")
    add(_matmul("self", "other"), "vdot matmul")
    add(_linear, "linear mkldnn_linear")
    add(_summed_products, "addbmm")
    add(_grouped_product, "_grouped_mm _scaled_grouped_mm")
    add(_sampled_product, "sparse_sampled_addmm")
    add(_outer, "addr ger outer")
    add(_recurrent(1), "mkldnn_rnn_layer")
    add(_recurrent(2), "mkldnn_rnn_layer_backward")
    add(_encoder_layer, "_transformer_encoder_layer_fwd _native_multi_head_attention")

    add(_convolution, "convolution _convolution conv1d conv2d conv3d mkldnn_convolution cudnn_convolution")
    add(_convolution_backward, "convolution_backward")

    add(_attention, """
        _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention
        _scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention
        _scaled_dot_product_fused_attention_overrideable _scaled_dot_product_attention_math_for_mps
        scaled_dot_product_attention
    """)
    add(_attention_backward, """
        _scaled_dot_product_flash_attention_for_cpu_backward _scaled_dot_product_flash_attention_backward
        _scaled_dot_product_efficient_attention_backward _scaled_dot_product_cudnn_attention_backward
        _scaled_dot_product_fused_attention_overrideable_backward
    """)

    add(_per_element("softmax", SOFTMAX), "_softmax _log_softmax _safe_softmax")
    add(_per_element("softmax", SOFTMAX_BACKWARD), "_softmax_backward_data _log_softmax_backward_data")
    add(_layer_norm, "native_layer_norm native_group_norm")
    add(_norm_backward, "native_layer_norm_backward native_group_norm_backward")
    add(_rms_norm, "rms_norm _fused_rms_norm")
    add(_per_element("normalization", 9), "_fused_rms_norm_backward")  # input 7: LayerNorm's without means; weight 2
    add(_batch_norm, """
        native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training _batch_norm_with_update
        _batch_norm_no_update batch_norm cudnn_batch_norm
    """)
    add(_norm_backward, "native_batch_norm_backward batch_norm_backward cudnn_batch_norm_backward")

    add(_gather, "embedding index index_select gather take take_along_dim masked_select _unsafe_index")
    add(_embedding_backward, "embedding_dense_backward embedding_backward")
    add(_scatter(adds=True), "index_add scatter_add scatter_reduce index_reduce")
    add(_scatter(adds=False), """
        index_put _index_put_impl _unsafe_index_put index_copy index_fill scatter masked_scatter put
    """)
    add(_embedding_bag, "_embedding_bag _embedding_bag_forward_only")
    add(_reduction(1), "nonzero")

    add(_pool, "max_pool2d_with_indices max_pool3d_with_indices max_pool2d max_pool1d avg_pool1d avg_pool2d avg_pool3d")
    add(_adaptive_pool, "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d adaptive_max_pool2d")
    add(_max_pool_backward, """
        max_pool2d_with_indices_backward max_pool3d_with_indices_backward adaptive_max_pool2d_backward
    """)
    add(_average_pool_backward, "avg_pool2d_backward avg_pool3d_backward _adaptive_avg_pool2d_backward")
    add(_interpolate, """
        upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d
        upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
        upsample_nearest1d_backward upsample_nearest2d_backward upsample_linear1d_backward
        upsample_bilinear2d_backward upsample_bicubic2d_backward
    """)
    add(_sort, "sort argsort msort median nanmedian unique_dim unique_consecutive _unique2 searchsorted bucketize")
    add(_select_best, "topk kthvalue mode")

    add(_foreach, """
        _foreach_add _foreach_sub _foreach_mul _foreach_div _foreach_neg _foreach_sqrt _foreach_rsqrt
        _foreach_reciprocal _foreach_abs _foreach_exp _foreach_log _foreach_pow _foreach_lerp _foreach_addcmul
        _foreach_addcdiv _foreach_maximum _foreach_minimum _foreach_clamp_min _foreach_clamp_max _foreach_sign
    """)
    add(_fused(ADAM), "_fused_adam")
    add(_fused(ADAMW), "_fused_adamw")
    add(_fused(SGD), "_fused_sgd")
    return rules
# fmt: on


RULES: Mapping[str, Rule] = _table()
