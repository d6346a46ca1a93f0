"""What is timed on PyTorch's side: attention by name, and the model that `favor bench train` trains."""
import torch
import torch.nn.functional as F
from performer_pytorch import FastAttention
from torch import nn


class Exact(nn.Module):
    def __init__(self, causal):
        super().__init__()
        self.causal = causal

    def forward(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)


def attention_of(kind, dim, features, causal):
    """A module from q, k, v [B][H][L][dim] to y; kinds by favor's names."""
    if kind == "exact":
        return Exact(causal)
    return FastAttention(dim, nb_features=features, causal=causal, generalized_attention=kind == "relu")


class Layer(nn.Module):
    """x + W_o attention(W_qkv LN(x)), then x + W_2 gelu(W_1 LN(x) + b_1) + b_2"""

    def __init__(self, kind, features, d_model, heads, ffn):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.attention = attention_of(kind, d_model // heads, features, causal=False)
        self.output = nn.Linear(d_model, d_model, bias=False)
        self.up, self.down = nn.Linear(d_model, ffn), nn.Linear(ffn, d_model)

    def forward(self, x):
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        x = x + self.output(self.attention(q, k, v).transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class MaskedLM(nn.Module):
    """favor's encoder: learned positions, pre-LN layers, LN and an untied output matrix; no dropout."""

    letters, mask, vocabulary = 25, 28, 29  # of favor's protein alphabet

    def __init__(self, kind, length, features, layers, d_model, heads, ffn):
        super().__init__()
        self.token = nn.Embedding(self.vocabulary, d_model)
        self.place = nn.Parameter(torch.randn(length, d_model))
        self.layers = nn.Sequential(*(Layer(kind, features, d_model, heads, ffn) for _ in range(layers)))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, self.vocabulary)

    def forward(self, ids, rows, targets):
        """The mean loss of the tokens at rows of the flattened batch."""
        x = self.layers(self.token(ids) + self.place)
        return F.cross_entropy(self.head(self.norm(x.flatten(0, 1)[rows])), targets)
