"""The BERT encoder (Devlin et al. 2019, arXiv:1810.04805) in plain torch, under the names of published weights.

Ours, because a measuring session is a fresh process and importing Transformers takes longer than all that the session
measures. Checked against Transformers' BertModel. Axes: B texts, L tokens, D hidden size, H heads, E head size, T
tokens of all texts without padding.
"""

from collections.abc import Callable

from torch import Tensor, arange, nn
from torch.nn import functional

# from queries, keys and values, [..., tokens, H, E] each, to the attended values in the same shape
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


class Embeddings(nn.Module):
    """Word, position and segment embeddings (every token is of segment 0), normalised."""

    def __init__(self, words: int, positions: int, segments: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(words, hidden)
        self.position_embeddings = nn.Embedding(positions, hidden)
        self.token_type_embeddings = nn.Embedding(segments, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps)

    def forward(self, input_ids: Tensor, position_ids: Tensor | None = None) -> Tensor:
        """input_ids: [B, L] int64, L at most the number of positions. Returns [B, L, D].

        position_ids: of the shape of input_ids, which may then be [T]; None: from 0 on along the last axis.
        """
        if position_ids is None:
            position_ids = arange(input_ids.shape[-1], device=input_ids.device)
        place = self.position_embeddings(position_ids) + self.token_type_embeddings.weight[0]
        embedded: Tensor = self.LayerNorm(self.word_embeddings(input_ids) + place)
        return embedded


class SelfAttention(nn.Module):
    """Scaled dot-product attention of H heads, before the output projection."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))

    def forward(self, x: Tensor, attention: Attention) -> Tensor:
        """x: [B, L, D] or [T, D]; returns the same shape."""
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)) for layer in (self.query, self.key, self.value))
        return attention(q, k, v).flatten(-2)


class AddAndNorm(nn.Module):
    """A projection, the residual, the norm."""

    def __init__(self, inner: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps)

    def forward(self, inner: Tensor, residual: Tensor) -> Tensor:
        summed: Tensor = self.LayerNorm(self.dense(inner) + residual)
        return summed


class Layer(nn.Module):
    """One encoder layer: attention, then a feed-forward network with exact GELU, each with its residual and norm."""

    def __init__(self, hidden: int, heads: int, inner: int, eps: float) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {"self": SelfAttention(hidden, heads), "output": AddAndNorm(hidden, hidden, eps)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(hidden, inner)})
        self.output = AddAndNorm(inner, hidden, eps)

    def forward(self, x: Tensor, attention: Attention) -> Tensor:
        """x: [B, L, D] or [T, D]; returns the same shape."""
        x = self.attention["output"](self.attention["self"](x, attention), x)
        out: Tensor = self.output(functional.gelu(self.intermediate["dense"](x)), x)
        return out


class Encoder(nn.Module):
    """The embeddings and N layers. Arguments are named as in a published configuration."""

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        num_hidden_layers: int,
        num_attention_heads: int,
        intermediate_size: int,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        layer_norm_eps: float = 1e-12,
    ) -> None:
        if hidden_size % num_attention_heads:
            raise ValueError(f"hidden_size {hidden_size} is no multiple of num_attention_heads {num_attention_heads}")
        super().__init__()
        self.embeddings = Embeddings(vocab_size, max_position_embeddings, type_vocab_size, hidden_size, layer_norm_eps)
        layers = [
            Layer(hidden_size, num_attention_heads, intermediate_size, layer_norm_eps) for _ in range(num_hidden_layers)
        ]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """input_ids, attention_mask (1 for a token, 0 for padding): [B, L] int64. Returns hidden states [B, L, D]."""
        mask_B11L = attention_mask.bool()[:, None, None, :]

        def attention(*qkv_BLHE: Tensor) -> Tensor:
            q, k, v = (x.transpose(1, 2) for x in qkv_BLHE)
            return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask_B11L).transpose(1, 2)

        return self._layers(self.embeddings(input_ids), attention)

    def forward_packed(self, input_ids: Tensor, position_ids: Tensor, attention: Attention) -> Tensor:
        """The tokens of several texts one after another, without padding; what attends keeps the texts apart.

        input_ids, position_ids (the place of each token in its own text): [T] int64. Returns hidden states [T, D].
        """
        return self._layers(self.embeddings(input_ids, position_ids), attention)

    def _layers(self, x: Tensor, attention: Attention) -> Tensor:
        for layer in self.encoder["layer"].children():
            x = layer(x, attention)
        return x
