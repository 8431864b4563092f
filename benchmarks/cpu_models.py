"""Models that `forecast_cpu.py` forecasts and measures: families of everyday use with random weights, built in code.

Nothing here is a probe of `gnomon calibrate`, and no probe was chosen with these models at hand.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Case(NamedTuple):
    """build: the module and the inputs that it is called with. training: a step of Adam on the sum of the output."""

    build: Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]
    training: bool = False


class _First(nn.Module):
    """A Transformers model that takes token ids or pixels and gives its first output."""

    def __init__(self, model: nn.Module, **options: Any) -> None:
        super().__init__()
        self.model, self.options = model, options

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x, return_dict=False, **self.options)[0]
        return out


def _tokens(batch: int, length: int, vocabulary: int) -> tuple[Tensor]:
    return (torch.randint(vocabulary, (batch, length), generator=torch.Generator().manual_seed(1)),)


def bert() -> tuple[nn.Module, tuple[Tensor, ...]]:
    from transformers import BertConfig, BertModel

    config = BertConfig(hidden_size=512, num_hidden_layers=4, num_attention_heads=8, intermediate_size=2048)
    return _First(BertModel(config)), _tokens(4, 128, config.vocab_size)


def gpt2() -> tuple[nn.Module, tuple[Tensor, ...]]:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_embd=384, n_layer=6, n_head=6)
    return _First(GPT2LMHeadModel(config), use_cache=False), _tokens(1, 256, config.vocab_size)


def llama() -> tuple[nn.Module, tuple[Tensor, ...]]:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=576, num_hidden_layers=8, num_attention_heads=9, num_key_value_heads=3, intermediate_size=1536,
        vocab_size=8192,
    )  # fmt: skip
    return _First(LlamaForCausalLM(config), use_cache=False), _tokens(1, 192, config.vocab_size)


def vit() -> tuple[nn.Module, tuple[Tensor, ...]]:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=6, intermediate_size=1536, image_size=160
    )
    return _First(ViTModel(config)), (torch.rand(2, 3, 160, 160),)


def _normed(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class _Residual(nn.Module):
    """Basic and bottleneck blocks of He et al. 2016."""

    def __init__(self, inputs: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        outputs, act = width * expansion, nn.ReLU(inplace=True)
        if expansion == 1:
            parts = [_normed(inputs, width, 3, stride), act, _normed(width, width, 3)]
        else:
            parts = [_normed(inputs, width, 1), act, _normed(width, width, 3, stride), act, _normed(width, outputs, 1)]
        self.body = nn.Sequential(*parts)
        self.short = nn.Identity() if stride == 1 and inputs == outputs else _normed(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.short(x), inplace=True)


def _resnet(depths: tuple[int, ...], expansion: int) -> nn.Module:
    layers: list[nn.Module] = [_normed(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, depth in enumerate(depths):
        for i in range(depth):
            width = 64 * 2**stage
            layers.append(_Residual(channels, width, 2 if stage and not i else 1, expansion))
            channels = width * expansion
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


def resnet18() -> tuple[nn.Module, tuple[Tensor, ...]]:
    return _resnet((2, 2, 2, 2), 1), (torch.rand(2, 3, 224, 224),)


def resnet50() -> tuple[nn.Module, tuple[Tensor, ...]]:
    return _resnet((3, 4, 6, 3), 4), (torch.rand(2, 3, 160, 160),)


class _Inverted(nn.Module):
    """Sandler et al. 2018."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner, act = inputs * expansion, nn.ReLU6(inplace=True)
        wider = [_normed(inputs, inner, 1), act] if expansion > 1 else []
        self.body = nn.Sequential(*wider, _normed(inner, inner, 3, stride, inner), act, _normed(inner, outputs, 1))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.adds else y


def mobilenet() -> tuple[nn.Module, tuple[Tensor, ...]]:
    plan = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    layers: list[nn.Module] = [_normed(3, 32, 3, 2), nn.ReLU6(inplace=True)]
    channels = 32
    for expansion, outputs, depth, stride in plan:
        for i in range(depth):
            layers.append(_Inverted(channels, outputs, 1 if i else stride, expansion))
            channels = outputs
    head = [_normed(320, 1280, 1), nn.ReLU6(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)]
    return nn.Sequential(*layers, *head), (torch.rand(4, 3, 192, 192),)


class _UNet(nn.Module):
    """Ronneberger et al. 2015 with padding, a quarter of the channels."""

    def __init__(self, width: int = 16, depth: int = 4) -> None:
        super().__init__()
        sizes = [width * 2**i for i in range(depth + 1)]
        self.down = nn.ModuleList(self._double(a, b) for a, b in zip([3, *sizes[:-1]], sizes, strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * c, c, 2, 2) for c in reversed(sizes[:-1]))
        self.join = nn.ModuleList(self._double(2 * c, c) for c in reversed(sizes[:-1]))
        self.head = nn.Conv2d(width, 2, 1)

    @staticmethod
    def _double(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        for i, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if i else x)
            kept.append(x)
        kept.pop()
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([kept.pop(), up(x)], 1))
        out: Tensor = self.head(x)
        return out


def unet() -> tuple[nn.Module, tuple[Tensor, ...]]:
    return _UNet(), (torch.rand(1, 3, 256, 256),)


class _Mixer(nn.Module):
    """Tolstikhin et al. 2021: 6 layers over 14 x 14 patches of 192 channels."""

    def __init__(self, channels: int = 192, patches: int = 196, depth: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 16, 16)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2 * depth))
        self.over_tokens = nn.ModuleList(self._mlp(patches, patches // 2) for _ in range(depth))
        self.over_channels = nn.ModuleList(self._mlp(channels, 4 * channels) for _ in range(depth))

    @staticmethod
    def _mlp(size: int, inner: int) -> nn.Module:
        return nn.Sequential(nn.Linear(size, inner), nn.GELU(), nn.Linear(inner, size))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        norms = iter(self.norms)
        for tokens, channels in zip(self.over_tokens, self.over_channels, strict=True):
            x = x + tokens(next(norms)(x).transpose(1, 2)).transpose(1, 2)
            x = x + channels(next(norms)(x))
        return x.mean(1)


def mixer() -> tuple[nn.Module, tuple[Tensor, ...]]:
    return _Mixer(), (torch.rand(4, 3, 224, 224),)


_NODES, _EDGES = 12000, 90000


def _edges() -> Tensor:
    """A random graph whose in-degrees are as uneven as the square of a uniform number makes them."""
    drawn = torch.rand(2, _EDGES, generator=torch.Generator().manual_seed(2))
    return torch.stack([(drawn[0] * _NODES).long(), (drawn[1] ** 2 * _NODES).long()])


class _GCN(nn.Module):
    """Kipf and Welling 2017: symmetric normalisation, then a sum over neighbours."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        degree = torch.ones(len(x)).index_add_(0, target, torch.ones(len(target)))
        scale = degree.rsqrt()
        weight = (scale[source] * scale[target])[:, None]
        for i, layer in enumerate(self.layers):
            y = layer(F.relu(x) if i else x)
            x = (y / degree[:, None]).index_add_(0, target, y.index_select(0, source) * weight)
        return x


def gcn() -> tuple[nn.Module, tuple[Tensor, ...]]:
    return _GCN((192, 96, 96, 24)), (torch.rand(_NODES, 192), _edges())


class _SAGE(nn.Module):
    """Hamilton et al. 2017 with the mean over neighbours."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        pairs = list(pairwise(sizes))
        self.own = nn.ModuleList(nn.Linear(a, b) for a, b in pairs)
        self.near = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairs)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        count = torch.zeros(len(x)).index_add_(0, target, torch.ones(len(target))).clamp_min(1)[:, None]
        for i, (own, near) in enumerate(zip(self.own, self.near, strict=True)):
            x = F.relu(x) if i else x
            mean = torch.zeros_like(x).index_add_(0, target, x.index_select(0, source)) / count
            x = own(x) + near(mean)
        return x


def sage() -> tuple[nn.Module, tuple[Tensor, ...]]:
    return _SAGE((96, 80, 80, 24)), (torch.rand(_NODES, 96), _edges())


class _GAT(nn.Module):
    """Velickovic et al. 2018: attention over neighbours, a softmax over each node's edges."""

    def __init__(self, inputs: int, size: int, heads: int, depth: int) -> None:
        super().__init__()
        self.size, self.heads = size, heads
        wide = heads * size
        self.layers = nn.ModuleList(nn.Linear(inputs if not i else wide, wide, bias=False) for i in range(depth))
        self.left = nn.ParameterList(nn.Parameter(torch.randn(heads, size) * 0.1) for _ in range(depth))
        self.right = nn.ParameterList(nn.Parameter(torch.randn(heads, size) * 0.1) for _ in range(depth))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        for layer, left, right in zip(self.layers, self.left, self.right, strict=True):
            y = layer(x).view(-1, self.heads, self.size)
            score = (y * left).sum(-1).index_select(0, source) + (y * right).sum(-1).index_select(0, target)
            weight = F.leaky_relu(score, 0.2).exp()
            total = torch.zeros(len(x), self.heads).index_add_(0, target, weight)
            weight = weight / total.index_select(0, target)
            message = y.index_select(0, source) * weight[..., None]
            x = F.elu(torch.zeros_like(y).index_add_(0, target, message).flatten(1))
        return x


def gat() -> tuple[nn.Module, tuple[Tensor, ...]]:
    return _GAT(96, 12, 6, 2), (torch.rand(_NODES, 96), _edges())


MODELS: dict[str, Case] = {
    "BERT, 4 x 512": Case(bert), "GPT-2, 6 x 384": Case(gpt2), "Llama, 8 x 576": Case(llama), "ViT, 6 x 384": Case(vit),
    "ResNet-18": Case(resnet18), "ResNet-50": Case(resnet50), "MobileNetV2": Case(mobilenet), "U-Net": Case(unet),
    "MLP-Mixer": Case(mixer), "GCN": Case(gcn), "GraphSAGE": Case(sage), "GAT": Case(gat),
    "BERT, training": Case(bert, True), "ResNet-18, training": Case(resnet18, True),
}  # fmt: skip
