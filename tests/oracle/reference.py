"""A whole call: sequences, heads, what stands around the mechanism, and all gradients.

    q', k' = rotary(ppsbn(q)), rotary(ppsbn(k));  u = A v / guard(A 1) + T v;  y = gamma sign(u) |u|^beta

Shapes as in the files: q [Tq,H,d], k [Tk,G,d], v [Tk,G,dv]; a tensor without its head dimension serves all heads.
"""
from types import SimpleNamespace
import numpy as np
from bounds import Num, Var, backward, concat, step, var
from kinds import KINDS

# Tensors by the rank they have for one head; a file may hold one more dimension, the heads, in front.
HEAD_RANK = {"projection": 2, "projection_trig": 2, "angle_rows": 2, "rmf_degrees": 1, "rmf_signs": 2, "psi_diagonal": 1,
             "decay": 0, "position_bias": 1, "bandwidth": 1, "map_weight": 2, "rebased_gamma": 1, "rebased_beta": 1,
             "ppsbn_gamma": 0, "ppsbn_beta": 1, "linformer_e": 2, "linformer_f": 2}
CONSTANT = ("rmf_degrees", "rmf_signs", "lsh_rotations", "angle_rows", "projection_trig", "psi_diagonal")


# ---- around the mechanism ----------------------------------------------------------------------------------------


def rotate(x, positions, base):
    half = x.shape[1] // 2
    turn = positions[:, None] * base ** (-np.arange(half) / half)
    cos, sin = (Var(Num(f(turn), np.abs(f(turn)) + np.abs(turn))) for f in (np.cos, np.sin))
    a, b = x[:, :half], x[:, half:]
    return concat([a * cos - b * sin, a * sin + b * cos], 1)


def pre_scaling(x):
    d = x.shape[1]
    x = x - x.sum(1) * (1 / d)
    x = x / ((x * x).sum(1) * (1 / d) + 1e-12).sqrt()
    return x / (x * x).sum(1).sqrt()


def post_scaling(u, gamma, beta):
    sign, live = np.sign(u.n.x), u.n.x != 0
    safe = u.abs() + (~live) * 1.0
    return ((safe.log() * beta.reshape(1, -1)).exp() * gamma.reshape(1, 1) * sign).where(live)


def toeplitz(w, v, index):
    """sum over the offsets in `index` of w[index] v. By FFT errors are relative to norms, not to single entries: the
    magnitudes of all entries of a product share the norm of it."""
    T = w.n.each(lambda x: sum(np.where(at >= 0, x[at], 0) for at in index))
    spread = lambda *sizes: np.prod([np.linalg.norm(s) for s in sizes])
    product = Num(T.x, T.m) @ v.n
    blur = np.linalg.norm(w.n.x) * np.linalg.norm(v.n.m, axis=0, keepdims=True) * len(index)

    def to_w(g):
        G = g.x @ v.n.x.T
        out, bound = np.zeros(w.shape), np.zeros(w.shape)
        M = g.m @ v.n.m.T
        for at in index:
            np.add.at(out, at[at >= 0], G[at >= 0])
            np.add.at(bound, at[at >= 0], M[at >= 0])
        return Num(out, bound + spread(g.m, v.n.m))

    def to_v(g):
        back = Num(T.x.T, T.m.T) @ g
        return Num(back.x, back.m + np.linalg.norm(w.n.x) * np.linalg.norm(g.m, axis=0, keepdims=True) * len(index))

    return Var(Num(product.x, product.m + blur), (w, to_w), (v, to_v))


def offsets(h, raster):
    """Entries of the bias for i - j, -1 where there is none; two of them on a raster."""
    n = (h.position_bias.shape[0] + 1) // 2
    i, j = h.i[:, None] - h.skip, h.j[None, :] - h.skip
    seen = h.visible & (i >= 0) & (j >= 0)
    pairs = [(i // n, j // n), (i % n, j % n)] if raster else [(i, j)]
    return [np.where(seen, a - b + n - 1, -1) for a, b in pairs]


def fading(h):
    """Factor of key j at query i: a product of gates or a power of the decay."""
    lower = h.visible
    steps = np.where(lower, h.i[:, None] - h.j[None, :], 0).astype(float)
    if h.gate is None:
        return (h.decay.reshape(1, 1).log() * steps).exp().where(lower)
    log = h.gate.log()
    total = log.n.each(np.cumsum)

    def back(g):  # gate t is between j and i: j < t <= i
        def each(x):
            x = np.cumsum(np.where(lower, x, 0)[::-1], 0)[::-1]  # over i >= t
            return np.array([x[t, :t].sum() for t in range(len(x))])
        return g.each(each)

    between = Num(np.where(lower, total.x[:, None] - total.x[None, :], 0),
                  np.where(lower, np.abs(total.m[:, None] - total.m[None, :]), 0))
    return (Var(between, (log, back)).exp() * (Var(np.ones(1)) - h.gate).reshape(1, -1)).where(lower)


# ---- one head ----------------------------------------------------------------------------------------------------


def guarded(D, guard):
    name, _, value = guard.partition(":")
    X = float(value or 0)
    if name == "add":
        return D + X
    if name not in ("clamp", "abs", "sign"):
        return D
    size = D if name == "clamp" else D.abs()
    above = step((size - X).n)
    over = Var(Num(np.maximum(size.n.x, X), size.n.m), (size, lambda g: g * above))
    if name != "sign":
        return over
    sign = step(D.n) + -step(-D.n) + Num((D.n.x == 0) * 1.0)
    return over * Var(sign)


def mechanism(case, kind, q, k, v, h):
    """y and the weights, before anything that follows the mechanism."""
    if case["kind"] == "linformer":
        n = k.shape[0]
        k, v = h.linformer_e[:, :n] @ k, h.linformer_f[:, :n] @ v
        h.visible = np.ones((q.shape[0], k.shape[0]), bool) & (n > 0)  # of projected keys
    root = np.sqrt(h.scale)
    x, y = (q, k) if kind.raw else (q * root, k * root)
    if case.get("bias") == "kernel":
        h.kernel_bias = h.position_bias[np.maximum(offsets(h, False)[0], 0)]
    A = kind.weights(x, y, h).where(h.visible)
    if h.kernel_bias is not None:
        A = A * h.kernel_bias.exp()
    if h.gate is not None or h.decay is not None:
        A = A * fading(h)
    if case["kind"] == "identity":
        return v, A
    N, D = A @ v, A.sum(1)
    guard = case.get("denominator") or kind.default
    G = var(np.ones(D.shape)) if guard == "off" else guarded(D, guard)
    live = np.broadcast_to((D.n.m > 0) & (G.n.x != 0), N.shape)
    return (N / G).where(live), (A / G).where(live[:, :1])


def head(case, q, k, v, h):
    kind = KINDS[case["kind"]]
    if case.get("ppsbn"):
        q, k = pre_scaling(q), pre_scaling(k)
    if case.get("rotary"):
        base = case.get("rotary_base") or 10000.0
        q, k = rotate(q, h.i, base), rotate(k, h.j, base)
    y, A = mechanism(case, kind, q, k, v, SimpleNamespace(**vars(h)))
    if case.get("bias") in ("fastrpb", "fastrpb-2d"):
        y = y + toeplitz(h.position_bias, v, offsets(h, case["bias"] == "fastrpb-2d"))
    if case.get("ppsbn"):
        gamma = h.ppsbn_gamma if h.ppsbn_gamma is not None else var(np.ones(1))
        beta = h.ppsbn_beta if h.ppsbn_beta is not None else var(np.ones(v.shape[1]))
        y = post_scaling(y, gamma, beta)
    return y, A


# ---- the whole call ----------------------------------------------------------------------------------------------


def default_scale(kind, d):
    return 1.0 if kind.unit else d ** -0.5


def options_of_head(case, d):
    kind = KINDS[case["kind"]]
    names = list(HEAD_RANK) + ["gate", "lsh_rotations", "kernel_bias", "psi", "random"]
    h = SimpleNamespace(**{name: None for name in names})
    h.scale = case.get("scale") or default_scale(kind, d)
    h.epsilon = 1e-3 if case.get("epsilon") is None else case["epsilon"]
    h.tau, h.psi, h.skip = case.get("tau") or 1.0, case.get("psi"), case.get("skip", 0)
    h.rmf_law, h.rmf_max_degree = case.get("rmf_law") or "geometric:2", case.get("rmf_max_degree")
    for name in ("window", "stride", "block", "globals"):
        setattr(h, name, case.get(name))
    return h


def reference(case, t, inputs, random=None):
    """Outputs as Nums by their names. t: q, k, v, dy and offsets in float64; inputs: the other tensors, as in the file
    or drawn; random [H,Tq,Tk]: what bigbird's random blocks show."""
    q, k, v, dy = t["q"], t.get("k"), t["v"], t.get("dy")
    k = np.zeros(v.shape[:2] + q.shape[2:]) if k is None else k
    (Tq, H, d), (Tk, G, dv) = q.shape, v.shape
    oq = t.get("offsets_q", np.array([0, Tq]))
    ok = t.get("offsets_k", t.get("offsets_q", np.array([0, Tk])))
    out = {"y": Num(np.zeros((Tq, H, dv))), "weights": Num(np.zeros((H, Tq, Tk)))}
    if dy is not None:
        shapes = {"dq": q.shape, "dk": k.shape, "dv": v.shape}
        shapes.update({"d_" + name: x.shape for name, x in inputs.items() if name not in CONSTANT})
        out.update({name: Num(np.zeros(shape)) for name, shape in shapes.items()})
    for name in out:
        out[name].m = np.zeros(out[name].x.shape)

    def add(name, index, part):
        if name in out:
            out[name].x[index] += part.x.reshape(out[name].x[index].shape)
            out[name].m[index] += part.m.reshape(out[name].x[index].shape)

    for s in range(len(oq) - 1):
        a, b = slice(oq[s], oq[s + 1]), slice(ok[s], ok[s + 1])
        for n in range(H):
            g = n * G // H
            h = options_of_head(case, d)
            h.i, h.j = np.arange(oq[s + 1] - oq[s]), np.arange(ok[s + 1] - ok[s])
            h.longest = case.get("max_tokens") or max(len(h.i), len(h.j), 1)
            h.visible = np.ones((len(h.i), len(h.j)), bool)
            if case.get("causal"):
                h.visible &= h.i[:, None] >= h.j[None, :]
            h.random = random[n, a, b] if random is not None else None
            leaves = {"dq": (var(q[a, n]), (a, n)), "dk": (var(k[b, g]), (b, g)), "dv": (var(v[b, g]), (b, g))}
            for name, x in inputs.items():
                index = (b, n) if name == "gate" else n if x.ndim > HEAD_RANK.get(name, 9) else ...
                value = x[index]
                leaf = value if name in ("rmf_degrees", "lsh_rotations") else var(np.atleast_1d(value))
                setattr(h, name, leaf)
                if name not in CONSTANT:
                    leaves["d_" + name] = (leaf, index)
            y, A = head(case, *(leaves[name][0] for name in ("dq", "dk", "dv")), h)
            add("y", (a, n), y.n)
            if case["kind"] != "linformer":
                add("weights", (n, a, b), A.n)
            if dy is not None:
                parts = backward(y, dy[a, n], [leaf for leaf, _ in leaves.values()])
                for (name, (_, index)), part in zip(leaves.items(), parts):
                    add(name, index, part)
    return out
