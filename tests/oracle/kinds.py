"""Every kind of attention once more, from the formulas, for one head of one sequence, as dense matrices of weights.

A kind is a row of KINDS: `weights(x, y, h)` gives A [nq,nk] >= the contract y = A v / guard(A 1), where x and y are the
queries and keys times sqrt(scale) (or the raw ones, where `raw`), and h holds the head's inputs and the options.
"""
import math
from types import SimpleNamespace
import numpy as np
from bounds import Num, Var, concat, var

# ---- feature maps: phi [n,r] of rows x [n,d] ---------------------------------------------------------------------


def half_square(x):
    return (x * x).sum(1) * 0.5


def unit_rows(w):
    """Rows of norm sqrt(d)."""
    return w * np.sqrt(w.shape[1]) / (w * w).sum(1).sqrt()


def positive(x, h, w, hyperbolic=False):
    u, half, m = x @ w.T, half_square(x), w.shape[0]
    if not hyperbolic:
        return (u - half).exp() * m ** -0.5
    return concat([(u - half).exp(), (-u - half).exp()], 1) * (2 * m) ** -0.5


def trigonometric(x, h, w):
    u, m = x @ w.T, w.shape[0]
    return half_square(x).exp() * concat([sine(u), cosine(u)], 1) * m ** -0.5


def sine(u):
    return u.smooth(np.sin, np.cos, lambda t: -np.sin(t))


def cosine(u):
    return u.smooth(np.cos, lambda t: -np.sin(t), lambda t: -np.cos(t))


def sigmoid(t):
    return 1 / (1 + np.exp(-t))


erf = np.vectorize(math.erf, otypes=[float])
normal_cdf = lambda t: 0.5 * (1 + erf(t / np.sqrt(2)))
normal_pdf = lambda t: np.exp(-t * t / 2) / np.sqrt(2 * np.pi)

FUNCTIONS = {
    "relu": lambda u: u.relu(),
    "exp": lambda u: u.exp(),
    "sigmoid": lambda u: u.smooth(sigmoid, lambda t: sigmoid(t) * sigmoid(-t),
                                  lambda t: sigmoid(t) * sigmoid(-t) * (1 - 2 * sigmoid(t))),
    "tanh": lambda u: u.smooth(np.tanh, lambda t: 1 / np.cosh(t)**2, lambda t: -2 * np.tanh(t) / np.cosh(t)**2),
    "gelu": lambda u: u.smooth(lambda t: t * normal_cdf(t), lambda t: normal_cdf(t) + t * normal_pdf(t),
                               lambda t: normal_pdf(t) * (2 - t * t), np.abs(u.n.x)),
    "abs": lambda u: u.abs(),
    "square": lambda u: u * u,
    "relu2": lambda u: u.relu() * u.relu(),
    "cos": cosine,
    "sin": sine,
    "linear": lambda u: u,
    "elu+1": lambda u: u.smooth(lambda t: np.where(t > 0, t + 1, np.exp(np.minimum(t, 0))),
                                lambda t: np.exp(np.minimum(t, 0)), lambda t: np.exp(np.minimum(t, 0))),
    "softplus": lambda u: u.smooth(lambda t: np.logaddexp(0, t), sigmoid, lambda t: sigmoid(t) * sigmoid(-t)),
}


def generalized(f):
    return lambda x, h: f(x @ h.projection.T if h.projection is not None else x) + h.epsilon


def unit_argument(x, h):
    """w.x of unit vectors, w = sigma o w~ / tau."""
    w = h.projection if h.bandwidth is None else h.projection * h.bandwidth.reshape(1, -1)
    return (x / ((x * x).sum(1).sqrt() + 1e-3)) @ (w * (1 / h.tau)).T


def rfa(x, h):
    u = unit_argument(x, h)
    return concat([sine(u), cosine(u)], 1) * u.shape[1] ** -0.5


def rfa_arccos(x, h):
    u = unit_argument(x, h)
    return u.relu() * u.shape[1] ** -0.5


def coefficient(name, n):
    if n == 0:
        return 1.0
    double = lambda k: math.prod(range(k, 0, -2)) if k > 0 else 1
    return {"exp": 1 / math.factorial(n), "trigh": 1 / math.factorial(n), "inv": 1.0, "logi": 1 / n,
            "sqrt": double(2 * n - 3) / (2**n * math.factorial(n))}[name]


SERIES = {"exp": np.exp, "trigh": lambda t: np.sinh(t) + np.cosh(t), "inv": lambda t: 1 / (1 - t),
          "logi": lambda t: 1 - np.log(1 - t), "sqrt": lambda t: 2 - np.sqrt(1 - t)}


def law(h, name, n):
    """p_n of the law of the degrees; one that ends early is normalised again."""
    words, _, text = h.rmf_law.partition(":")
    p = float(text)
    weight = {"geometric": lambda i: (p - 1) * p ** -(i + 1), "poisson": lambda i: np.exp(-p) * p**i / math.factorial(i),
              "optimal": lambda i: coefficient(name, i) * p ** (i / 2) / SERIES[name](p ** 0.5)}[words]
    return weight(n) / (sum(weight(i) for i in range(h.rmf_max_degree + 1)) if h.rmf_max_degree else 1.0)


def maclaurin(name):
    def features(x, h):
        columns, at = [], 0
        for n in h.rmf_degrees.astype(int):
            product = var(np.ones((x.shape[0], 1)))
            for row in range(at, at + n):
                product = product * (x @ h.rmf_signs[row : row + 1].T)
            at += n
            columns.append(product * np.sqrt(coefficient(name, n) / law(h, name, n)))
        return concat(columns, 1) * len(columns) ** -0.5
    return features


def dpfp(x, h):
    u = concat([x.relu(), (-x).relu()], 1)
    return u * u[:, np.roll(np.arange(u.shape[1]), -1)]


def squares(x):
    """All products x_i x_j: their inner product is (x.y)^2."""
    n, d = x.shape
    return (x.reshape(n, d, 1) * x.reshape(n, 1, d)).reshape(n, d * d)


def taylor(x, h):
    return concat([var(np.ones((x.shape[0], 1))), x, squares(x) * 0.5 ** 0.5], 1)


def rebased(x, h):
    d = x.shape[1]
    centred = x - x.sum(1) * (1 / d)
    u = centred / ((centred * centred).sum(1) * (1 / d) + 1e-5).sqrt()
    if h.rebased_gamma is not None:
        u = u * h.rebased_gamma.reshape(1, -1)
    if h.rebased_beta is not None:
        u = u + h.rebased_beta.reshape(1, -1)
    return squares(u) * d ** -0.5


def hedgehog(x, h):
    y = x if h.map_weight is None else x @ h.map_weight.T
    e = concat([y, -y], 1) * 2.0
    top = np.abs(e.n.x).max(1, keepdims=True)
    e = e.exp(top)
    return e / e.sum(1)


# ---- weights -----------------------------------------------------------------------------------------------------


def by_features(features):
    return lambda x, y, h: features(x, h) @ features(y, h).T


def with_rows(features, *more, rows=lambda w: w):
    return lambda x, y, h: features(x, h, rows(h.projection), *more) @ features(y, h, rows(h.projection), *more).T


def softmax(mask=lambda h: 1.0):
    def weights(q, k, h):
        u = (q @ k.T) * h.scale
        if h.kernel_bias is not None:
            u, h.kernel_bias = u + h.kernel_bias, None
        seen = h.visible & (np.broadcast_to(mask(h), u.shape) > 0)
        top = np.max(np.where(seen, u.n.m, 0), 1, keepdims=True, initial=0)
        return Var(Num(np.where(seen, u.n.x, 0), np.where(seen, u.n.m, 0)), (u, lambda g: g.where(seen))).exp(top) * (
            mask(h) * seen)
    return weights


def optimal_constant(psi, d):
    """A of the OPRF from psi, with the bound that psi has."""
    def A(p):
        rho = (np.sqrt((2 * p + d)**2 + 8 * d * p) - 2 * p - d) / (4 * p) if p > 0 else 1.0
        return (1 - 1 / rho) / 8
    p = float(psi.x)
    slope = (A(p * (1 + 1e-6)) - A(p)) / (p * 1e-6) if p > 0 else 0.0
    return Num(A(p), abs(A(p)) + abs(slope) * psi.m)


def mean_square(x, y):
    """Mean of |x_i + y_j|^2 over all pairs."""
    if x.shape[0] * y.shape[0] == 0:
        return Num(0.0)
    mean = lambda z: z.sum(0) * (1 / z.shape[0])
    return (mean((x * x).sum(1)) + mean((y * y).sum(1)) + (mean(x) * mean(y)).sum(1) * 2.0).n.each(np.squeeze)


def oprf(x, y, h):
    w, d = h.projection, x.shape[1]
    psi = Num(h.psi) if h.psi is not None else mean_square(x, y)
    A = optimal_constant(psi, d)
    one = Num(1 - 4 * A.x, 1 + 4 * A.m)
    B, G = Var(one).sqrt(), Var(one).log() * (d / 4)
    log = lambda z: (z @ w.T) * B - half_square(z) + (Var(A) * (w * w).sum(1) + G).reshape(1, -1)
    return log(x).exp() @ log(y).exp().T * (1 / w.shape[0])


def sharp(x, y, h):
    if h.psi_diagonal is not None:
        psi = h.psi_diagonal
    else:
        mean = lambda z: (z * z).sum(0) * (1 / max(z.shape[0], 1))
        psi = (mean(y) / mean(x)).frozen().sqrt().sqrt()
    psi = psi.frozen().reshape(1, -1)
    return oprf(x * psi, y / psi, h)


def hybrid(x, y, h):
    sign = lambda z: np.where((z @ h.angle_rows.T).n.x >= 0, 1.0, -1.0)
    angle = 0.5 - sign(x) @ sign(y).T / (2 * h.angle_rows.shape[0])  # estimates theta / pi
    plus = positive(x, h, h.projection) @ positive(y, h, h.projection).T
    trig = trigonometric(x, h, h.projection_trig) @ trigonometric(y, h, h.projection_trig).T
    # Tensor products of the two: every summand is there, whatever cancels in the angle.
    blur = lambda a: Num(a, np.ones_like(a))
    return plus * Var(blur(angle)) + trig * Var(blur(1 - angle))


def cosformer(x, y, h):
    turn = np.pi / (2 * h.longest)
    wave = lambda z, i: concat([z.relu() * np.sin(turn * i)[:, None], z.relu() * np.cos(turn * i)[:, None]], 1)
    return wave(x, h.i) @ wave(y, h.j).T


def distance(h):
    return np.abs(h.i[:, None] - h.j[None, :])


def first(h):
    return (h.i[:, None] < h.globals) | (h.j[None, :] < h.globals)


def strided(h):
    return (distance(h) <= h.window) | (distance(h) % h.stride == 0)


def fixed(h):
    return (h.i[:, None] // h.block == h.j[None, :] // h.block) | (h.j % h.block >= h.block - h.globals)[None, :]


def bigbird(h):
    return (np.abs(h.i[:, None] // h.block - h.j[None, :] // h.block) <= 1) | first(h) | (h.random if h.random is not None else False)


def lsh_counts(h):
    """In how many rounds each query sees each key; a query that never sees another one sees itself."""
    n, R = len(h.i), h.lsh_rotations
    counts = np.zeros((n, n))
    size = max(1, 2 * n // (2 * R.shape[2]))
    for r in range(R.shape[0]):
        turned = h.hashed @ R[r]
        bucket = np.argmax(np.concatenate([turned, -turned], 1), 1)
        order = np.lexsort((np.arange(n), bucket))
        chunk = np.empty(n, int)
        chunk[order] = np.arange(n) // size
        total = max(1, -(-n // size))
        counts += (chunk[:, None] == chunk[None, :]) | ((chunk[:, None] - 1) % total == chunk[None, :])
    counts *= h.visible & ~np.eye(n, dtype=bool)
    return counts


def reformer(q, k, h):
    h.hashed = q.n.x
    counts = lsh_counts(h)
    alone = counts.sum(1) == 0
    k = q / (q * q).sum(1).sqrt()
    A = softmax(lambda h: counts)(q, k, h)
    return A.where(~alone[:, None]) + np.diag(alone * 1.0)


# ---- the table ---------------------------------------------------------------------------------------------------


def row(weights, unit=False, raw=False, projected=False, general=False, signed=False, guard=True, **more):
    return SimpleNamespace(weights=weights, unit=unit, raw=raw, projected=projected, general=general,
                           guarded=guard, default="sign:1e-3" if signed else "none", options=more)


SIGNED = ("tanh", "gelu", "cos", "sin", "linear")
KINDS = {
    "exact": row(softmax(), raw=True, guard=False),
    "identity": row(lambda x, y, h: var(np.eye(len(h.i), len(h.j))), guard=False),
    "favor+": row(with_rows(positive), projected=True),
    "favor+hyp": row(with_rows(positive, True), projected=True),
    "favor-trig": row(with_rows(trigonometric), projected=True, signed=True),
    "favor+reg": row(with_rows(positive, rows=unit_rows), projected=True),
    "favor+reghyp": row(with_rows(positive, True, rows=unit_rows), projected=True),
    "favor++": row(oprf, projected=True),
    "favor#": row(sharp, projected=True),
    "favor-hybrid": row(hybrid, projected=True, signed=True),
    "rfa": row(by_features(rfa), unit=True, projected=True, signed=True),
    "rfa-arccos": row(by_features(rfa_arccos), unit=True, projected=True),
    "sikf": row(by_features(lambda x, h: x.exp()), unit=True),
    "dpfp": row(by_features(dpfp), unit=True),
    "taylor": row(by_features(taylor)),
    "rebased": row(by_features(rebased), unit=True),
    "cosformer": row(cosformer, unit=True),
    "hedgehog": row(by_features(hedgehog), unit=True),
    "linformer": row(softmax(), raw=True, guard=False),
    "reformer": row(reformer, raw=True, guard=False),
    "window": row(softmax(lambda h: distance(h) <= h.window), raw=True, guard=False),
    "strided": row(softmax(strided), raw=True, guard=False),
    "fixed": row(softmax(fixed), raw=True, guard=False),
    "longformer": row(softmax(lambda h: (distance(h) <= h.window) | first(h)), raw=True, guard=False),
    "bigbird": row(softmax(bigbird), raw=True, guard=False),
}
for name, f in FUNCTIONS.items():
    KINDS[name] = row(by_features(generalized(f)), unit=True, general=True, signed=name in SIGNED)
for name in ("exp", "inv", "logi", "trigh", "sqrt"):
    KINDS["rmf-" + name] = row(by_features(maclaurin(name)), signed=True)
