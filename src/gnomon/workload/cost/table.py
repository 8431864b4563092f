"""Which rule prices which operator."""

from collections.abc import Mapping

from gnomon.workload.cost.attention import attention, attention_backward
from gnomon.workload.cost.call import Rule
from gnomon.workload.cost.convolution import convolution, convolution_backward
from gnomon.workload.cost.gather import embedding_backward, embedding_bag, gather, scatter
from gnomon.workload.cost.normalize import (
    SOFTMAX,
    SOFTMAX_BACKWARD,
    STATISTICS,
    batch_norm,
    layer_norm,
    norm_backward,
    per_element,
    rms_norm,
)
from gnomon.workload.cost.pool import (
    adaptive_pool,
    average_pool_backward,
    interpolate,
    max_pool_backward,
    pool,
    select_best,
    sort,
)
from gnomon.workload.cost.product import (
    encoder_layer,
    grouped_product,
    linear,
    matmul,
    outer,
    recurrent,
    sampled_product,
    summed_products,
)
from gnomon.workload.cost.stream import (
    ADAM,
    ADAMW,
    SGD,
    copy,
    cut,
    draw_from,
    dropout,
    elementwise,
    fill,
    foreach,
    fused,
    random,
    reduction,
    scalar,
    view,
)

# fmt: off
# names of aten operators without namespace, overload and the in-place underscore
_TABLE: tuple[tuple[Rule, str], ...] = (
    (view, """
        view _unsafe_view view_as reshape _reshape_alias t transpose permute expand expand_as select slice unsqueeze
        squeeze detach alias as_strided split split_with_sizes unsafe_split unsafe_split_with_sizes chunk unsafe_chunk
        unbind diagonal unfold view_as_real view_as_complex real imag lift lift_fresh narrow movedim numpy_T mT mH
        swapaxes flatten unflatten resize set _nested_view_from_buffer conj _conj _neg_view values crow_indices
        col_indices ccol_indices row_indices indices _values _indices _sparse_csr_tensor_unsafe
        _sparse_compressed_tensor_unsafe is_same_size sym_size sym_stride sym_numel sym_storage_offset
        empty empty_like empty_strided new_empty new_empty_strided empty_permuted _efficientzerotensor
    """),
    (elementwise, """
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
    """),
    (reduction(1), """
        sum mean prod nansum max min amax amin aminmax argmax argmin any all cumsum cumprod cummax cummin logcumsumexp
        count_nonzero nll_loss_forward nll_loss2d_forward trace bincount histc equal is_nonzero
    """),
    (reduction(2), "norm linalg_vector_norm"),
    (reduction(3), "logsumexp mse_loss l1_loss smooth_l1_loss huber_loss kl_div binary_cross_entropy"),
    (reduction(STATISTICS), "var std var_mean std_mean"),
    (copy, "clone copy _to_copy to contiguous cat stack repeat repeat_interleave _foreach_copy _copy_from"),
    (cut, """
        flip roll constant_pad_nd tril triu reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d
        slice_backward select_backward slice_scatter select_scatter diagonal_backward diag_embed diag unfold_backward
        as_strided_scatter unfold_copy view_copy expand_copy permute_copy narrow_copy im2col col2im pixel_shuffle
        pixel_unshuffle channel_shuffle rot90 to_dense _to_dense
    """),
    (fill, """
        zeros ones full zeros_like ones_like full_like new_zeros new_ones new_full fill zero arange linspace logspace
        eye scalar_tensor tril_indices triu_indices _foreach_zero
    """),
    (scalar, "_local_scalar_dense item _linalg_check_errors"),
    (random, """
        rand randn randint randperm rand_like randn_like randint_like uniform normal exponential geometric random
        bernoulli cauchy log_normal
    """),
    (draw_from, "multinomial"),
    (dropout, "native_dropout"),

    (matmul("self", "mat2"), "mm bmm _int_mm _weight_int8pack_mm _scaled_mm _sparse_mm"),
    (matmul("mat1", "mat2", "self"), "addmm _addmm_activation sparse_addmm _sparse_addmm"),
    (matmul("batch1", "batch2", "self"), "baddbmm"),
    (matmul("self", "vec"), "mv"),
    (matmul("mat", "vec", "self"), "addmv"),
    (matmul("self", "tensor"), "dot"),
    (matmul("self", "other"), "vdot matmul"),
    (linear, "linear mkldnn_linear"),
    (summed_products, "addbmm"),
    (grouped_product, "_grouped_mm _scaled_grouped_mm"),
    (sampled_product, "sparse_sampled_addmm"),
    (outer, "addr ger outer"),
    (recurrent(1), "mkldnn_rnn_layer"),
    (recurrent(2), "mkldnn_rnn_layer_backward"),
    (encoder_layer, "_transformer_encoder_layer_fwd _native_multi_head_attention"),

    (convolution, "convolution _convolution conv1d conv2d conv3d mkldnn_convolution cudnn_convolution"),
    (convolution_backward, "convolution_backward"),

    (attention, """
        _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention
        _scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention
        _scaled_dot_product_fused_attention_overrideable _scaled_dot_product_attention_math_for_mps
        scaled_dot_product_attention
    """),
    (attention_backward, """
        _scaled_dot_product_flash_attention_for_cpu_backward _scaled_dot_product_flash_attention_backward
        _scaled_dot_product_efficient_attention_backward _scaled_dot_product_cudnn_attention_backward
        _scaled_dot_product_fused_attention_overrideable_backward
    """),

    (per_element("softmax", SOFTMAX), "_softmax _log_softmax _safe_softmax"),
    (per_element("softmax", SOFTMAX_BACKWARD), "_softmax_backward_data _log_softmax_backward_data"),
    (layer_norm, "native_layer_norm native_group_norm"),
    (norm_backward, "native_layer_norm_backward native_group_norm_backward"),
    (rms_norm, "rms_norm _fused_rms_norm"),
    (per_element("normalization", 9), "_fused_rms_norm_backward"),  # input 7: LayerNorm's without means; weight 2
    (batch_norm, """
        native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training _batch_norm_with_update
        _batch_norm_no_update batch_norm cudnn_batch_norm
    """),
    (norm_backward, "native_batch_norm_backward batch_norm_backward cudnn_batch_norm_backward"),

    (gather, "embedding index index_select gather take take_along_dim masked_select _unsafe_index"),
    (embedding_backward, "embedding_dense_backward embedding_backward"),
    (scatter(adds=True), "index_add scatter_add scatter_reduce index_reduce"),
    (scatter(adds=False), """
        index_put _index_put_impl _unsafe_index_put index_copy index_fill scatter masked_scatter put
    """),
    (embedding_bag, "_embedding_bag _embedding_bag_forward_only"),
    (reduction(1), "nonzero"),

    (pool, "max_pool2d_with_indices max_pool3d_with_indices max_pool2d max_pool1d avg_pool1d avg_pool2d avg_pool3d"),
    (adaptive_pool, "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d adaptive_max_pool2d"),
    (max_pool_backward, """
        max_pool2d_with_indices_backward max_pool3d_with_indices_backward adaptive_max_pool2d_backward
    """),
    (average_pool_backward, "avg_pool2d_backward avg_pool3d_backward _adaptive_avg_pool2d_backward"),
    (interpolate, """
        upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d
        upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
        upsample_nearest1d_backward upsample_nearest2d_backward upsample_linear1d_backward
        upsample_bilinear2d_backward upsample_bicubic2d_backward
    """),
    (sort, "sort argsort msort median nanmedian unique_dim unique_consecutive _unique2 searchsorted bucketize"),
    (select_best, "topk kthvalue mode"),

    (foreach, """
        _foreach_add _foreach_sub _foreach_mul _foreach_div _foreach_neg _foreach_sqrt _foreach_rsqrt
        _foreach_reciprocal _foreach_abs _foreach_exp _foreach_log _foreach_pow _foreach_lerp _foreach_addcmul
        _foreach_addcdiv _foreach_maximum _foreach_minimum _foreach_clamp_min _foreach_clamp_max _foreach_sign
    """),
    (fused(ADAM), "_fused_adam"),
    (fused(ADAMW), "_fused_adamw"),
    (fused(SGD), "_fused_sgd"),
)

RULES: Mapping[str, Rule] = {name: rule for rule, names in _TABLE for name in names.split()}
