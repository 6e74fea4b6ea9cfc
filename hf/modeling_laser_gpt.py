"""The models of laser.c (https://arxiv.org/abs/2411.03493) for Hugging Face's transformers, 4.57 or later.

    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)

This is transformers' Llama, whose caches, masks, attention kernels and generate() it keeps, with other layers where
config.json asks for them: LASER attention o = log(softmax(QK') exp(V)), differential attention, an MLP without a gate,
added positions, and the ablations of laser.c. The file is copied into checkpoints that need it. It needs nothing else of laser.c.

Limits. LASER is standard attention on exp(V - m), then log(.) + m, where m is the maximum of each column of V over all
keys in memory (the shift of the paper, "sequence"), whatever `laser_shift` the model was trained with. Nothing overflows,
however large V is. But a query all of whose visible values are more than 87 below a later token's value in the same
column gets m - 87 in float32 and bfloat16, and m - 9.7 in float16, in place of them; a token that is generated is the
last one, and is exact. A static cache's empty places count as values of 0. `attn_logit_softcapping` runs with the
attention implementation "eager" only.
"""
import math

import torch
from torch import nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel
from transformers.activations import ACT2FN
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    apply_rotary_pos_emb,
    eager_attention_forward,
)

CLAMP = 15.0  # of laser_shift "clamp"
KNOWN = {
    "attention": ("standard", "laser", "diff", "diff-laser"),
    "laser_shift": ("causal", "sequence", "none", "clamp"),
    "position_embedding": ("rope", "sinusoidal", "learned"),
    "norm": ("rmsnorm", "layernorm", "crmsnorm"),
    "norm_place": ("pre", "peri"),
    "bias": ("none", "mlp", "all"),
    "scale_embeddings": (False, True),
    "qk_norm": ("no", "yes"),
    "attention_scale": ("fixed", "head", "dim"),
    "hidden_act": ("silu", "gelu_pytorch_tanh", "relu", "relu2"),
}


class LaserGPTConfig(LlamaConfig):
    model_type = "laser_gpt"
    attention: str = "standard"
    laser_shift: str = "causal"
    laser_beta: float = 1.0
    position_embedding: str = "rope"
    norm: str = "rmsnorm"
    norm_place: str = "pre"
    bias: str = "none"  # with "mlp" and "all" also mlp_bias is true, with "all" attention_bias
    scale_embeddings: bool = False
    qk_norm: str = "no"
    attention_scale: str = "fixed"
    attn_logit_softcapping: float = 0.0
    final_logit_softcapping: float = 0.0

    def validate(self):
        """Not Llama's, whose width must be a multiple of the number of heads."""


def check(config):
    """A model that is not known here must not be computed as another one."""
    for key, values in KNOWN.items():
        if getattr(config, key) not in values:
            raise ValueError(f'config.json: "{key}" is {getattr(config, key)!r}, expected one of {", ".join(values)}')


class Norm(nn.Module):
    def __init__(self, config, size, kind=None, bias=False, eps=None):
        super().__init__()
        self.kind, self.eps = kind or config.norm, eps or config.rms_norm_eps
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size)) if bias else None

    def forward(self, x):
        y, count = x.float(), x.shape[-1]
        if self.kind == "layernorm":
            y = y - y.mean(-1, keepdim=True)
        squares = y.pow(2).sum(-1, keepdim=True)
        if self.kind == "crmsnorm":  # one more element, which makes the mean 0
            squares, count = squares + y.sum(-1, keepdim=True).pow(2), count + 1
        y = self.weight * (y * torch.rsqrt(squares / count + self.eps)).to(x.dtype)
        return y if self.bias is None else y + self.bias


class Attention(LlamaAttention):
    def __init__(self, config, layer_idx):
        super().__init__(config, layer_idx)
        if config.qk_norm == "yes":
            self.q_norm, self.k_norm = (Norm(config, self.head_dim, "rmsnorm") for _ in "qk")
        if config.attention_scale != "fixed":
            size = config.num_attention_heads if config.attention_scale == "head" else self.head_dim
            self.scale = nn.Module()
            self.scale.weight = nn.Parameter(torch.zeros(size))
        self.laser = config.attention in ("laser", "diff-laser")
        self.diff = config.attention in ("diff", "diff-laser")
        if self.diff:
            for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
                setattr(self, name, nn.Parameter(torch.zeros(self.head_dim)))
            self.subln = Norm(config, 2 * self.head_dim, "rmsnorm", eps=1e-5)
            self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * layer_idx)

    def difference(self, out):
        """(B, T, H, 2D), of which heads 2p and 2p + 1 are a pair, to (B, T, H / 2, 2D)"""
        pairs = (self.lambda_q1, self.lambda_k1), (self.lambda_q2, self.lambda_k2)
        e1, e2 = ((q.float() @ k.float()).exp() for q, k in pairs)
        out = out[:, :, 0::2] - (e1 - e2 + self.lambda_init).to(out.dtype) * out[:, :, 1::2]
        return self.subln(out) * (1 - self.lambda_init)

    def forward(self, hidden_states, position_embeddings=None, attention_mask=None, cache=None, **kwargs):
        config = self.config
        if cache is None:  # its name before transformers 5.20
            cache = kwargs.pop("past_key_values", None)
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        q, k, v = (w(hidden_states).view(shape).transpose(1, 2) for w in (self.q_proj, self.k_proj, self.v_proj))
        if config.qk_norm == "yes":
            q, k = self.q_norm(q), self.k_norm(k)
        if config.position_embedding == "rope":
            q, k = apply_rotary_pos_emb(q, k, *position_embeddings)
        if config.attention_scale != "fixed":
            factor = F.softplus(self.scale.weight) / math.log(2)
            q = q * (factor[:, None, None] if config.attention_scale == "head" else factor)
        if cache is not None:
            k, v = cache.update(k, v, self.layer_idx, {"cache_position": kwargs.get("cache_position")})
        if self.diff:  # both heads of a pair read the values of both: (B, H, T, D) to (B, H, T, 2D)
            v = v.unflatten(1, (-1, 2)).movedim(2, 3).flatten(3).repeat_interleave(2, 1)
        if self.laser:
            values = v.float()
            if config.laser_shift == "clamp":
                values = CLAMP * torch.tanh(values / CLAMP)
            values = config.laser_beta * values
            shift = values.amax(2, keepdim=True)  # (B, H, 1, D), or 2D
            v = (values - shift).exp().to(v.dtype)
        attend = eager_attention_forward
        if config.attn_logit_softcapping:
            attend = softcapped_attention
        elif config._attn_implementation != "eager":
            attend = ALL_ATTENTION_FUNCTIONS[config._attn_implementation]
        out, weights = attend(self, q, k, v, attention_mask, scaling=self.scaling, **kwargs)  # (B, T, H, D)
        if self.laser:
            least = torch.finfo(out.dtype).tiny  # also of a row that sees no key, in the padding
            out = ((out.float().clamp_min(least).log() + shift.transpose(1, 2)) / config.laser_beta).to(out.dtype)
        if self.diff:
            out = self.difference(out)
        return self.o_proj(out.reshape(*hidden_states.shape[:-1], -1)), weights


def softcapped_attention(module, q, k, v, mask, scaling, **_):
    cap = module.config.attn_logit_softcapping
    scores = cap * torch.tanh(q @ k.transpose(2, 3) * (scaling / cap))
    weights = torch.softmax(scores if mask is None else scores + mask, -1, dtype=torch.float32).to(q.dtype)
    return (weights @ v).transpose(1, 2), weights


class MLP(nn.Module):
    """Without a gate."""

    def __init__(self, config):
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, x):
        return self.down_proj(self.act_fn(self.up_proj(x)))


class DecoderLayer(LlamaDecoderLayer):
    def __init__(self, config, layer_idx):
        super().__init__(config, layer_idx)
        C = config.hidden_size
        self.self_attn = Attention(config, layer_idx)
        if config.hidden_act != "silu":
            self.mlp = MLP(config)
        self.input_layernorm, self.post_attention_layernorm = (
            Norm(config, C, bias=config.bias != "none") for _ in range(2)
        )
        self.peri = config.norm_place == "peri"
        if self.peri:
            self.post_self_attn_layernorm, self.post_mlp_layernorm = Norm(config, C), Norm(config, C)

    def forward(self, hidden_states, **kwargs):
        x = hidden_states
        branch, _ = self.self_attn(hidden_states=self.input_layernorm(x), **kwargs)
        x = x + (self.post_self_attn_layernorm(branch) if self.peri else branch)
        branch = self.mlp(self.post_attention_layernorm(x))
        return x + (self.post_mlp_layernorm(branch) if self.peri else branch)


class Model(LlamaModel):
    def __init__(self, config):
        super().__init__(config)
        self.layers = nn.ModuleList(DecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = Norm(config, config.hidden_size, bias=config.bias != "none")
        if config.position_embedding == "learned":
            self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.post_init()

    def positions(self, position_ids):
        if self.config.position_embedding == "learned":
            return self.embed_positions(position_ids)
        c, C = torch.arange(self.config.hidden_size, device=position_ids.device), self.config.hidden_size
        angle = position_ids[..., None].double() * 10000.0 ** (-(c // 2 * 2).double() / C)
        return torch.where(c % 2 == 1, angle.cos(), angle.sin())

    def forward(self, input_ids=None, position_ids=None, inputs_embeds=None, **kwargs):
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if self.config.scale_embeddings:
            inputs_embeds = inputs_embeds * math.sqrt(self.config.hidden_size)
        if self.config.position_embedding != "rope":
            if position_ids is None:
                cache = kwargs["cache"] if kwargs.get("cache") is not None else kwargs.get("past_key_values")
                past = 0 if cache is None else cache.get_seq_length()
                position_ids = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)[None] + past
            inputs_embeds = inputs_embeds + self.positions(position_ids).to(inputs_embeds.dtype)
        return super().forward(position_ids=position_ids, inputs_embeds=inputs_embeds, **kwargs)


class Logits(nn.Linear):
    def forward(self, x):
        x = super().forward(x)
        return x if not self.cap else self.cap * torch.tanh(x / self.cap)


class LaserGPTForCausalLM(LlamaForCausalLM):
    config_class = LaserGPTConfig
    _no_split_modules = ["DecoderLayer"]

    def __init__(self, config):
        check(config)
        super().__init__(config)
        if config.attn_logit_softcapping:
            config._attn_implementation = "eager"
        self.model = Model(config)
        self.lm_head = Logits(config.hidden_size, config.vocab_size, bias=False)
        self.lm_head.cap = config.final_logit_softcapping
        self.post_init()
