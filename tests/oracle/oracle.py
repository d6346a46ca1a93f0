#!/usr/bin/env python3
"""An outside oracle for favor's attention: NumPy in float64, driving `favor apply`.

    oracle.py PROGRAM [--seed N] [--only TEXT] [--verbose]

Every operator is written here once more, from the formulas, in plain dense matrices:

    exact     A_ij = exp(s q_i.k_j)
    favor+    A_ij = phi(q_i).phi(k_j),  phi(x) = exp(w.x' - |x'|^2/2)/sqrt(m),  x' = sqrt(s) x
    relu      the same with phi(x) = max(x', 0) + eps, or max(w.x', 0) + eps
    y = A v / guard(A 1)                 rows that see no key, or have no normaliser, are 0

Numbers carry a running bound: a `Num` is a value x and a magnitude m such that a float32 computation of x errs by a
few eps m (sums and products add magnitudes, exp multiplies by 1 + m, a quotient carries m_n/|d| + |n| m_d/d^2).
An output passes when |err| <= C eps m, entry by entry; C is one constant for everything.

Ends with "N passed, N failed, N skipped". Exit code 0, 1 (failures) or 77 (no NumPy: skipped).
"""
import json, os, struct, subprocess, sys, tempfile
from concurrent.futures import ThreadPoolExecutor

try:
    import numpy as np
except ImportError:
    if sys.executable != "/usr/bin/python3" and os.path.exists("/usr/bin/python3"):
        os.execv("/usr/bin/python3", ["/usr/bin/python3"] + sys.argv)
    print("skipped: NumPy is missing (Debian: python3-numpy)")
    print("0 passed, 0 failed, 1 skipped")
    sys.exit(77)

EPS = 2.0 ** -24  # unit roundoff of float32
C = 8.0

# ---- safetensors: 8 bytes of header length, JSON, data -----------------------------------------------------------

DTYPES = {"F32": np.float32, "F64": np.float64, "I64": np.int64, "I32": np.int32, "U8": np.uint8}


class BF16(np.ndarray):
    """Marks a uint16 array as bfloat16."""


def bf16(x):
    return (np.asarray(x, np.float32).view(np.uint32) >> 16).astype(np.uint16).view(BF16)


def write(path, tensors, metadata=None):
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, x in tensors.items():
        x = np.ascontiguousarray(x) if not isinstance(x, BF16) else x
        kind = "BF16" if isinstance(x, BF16) else {v: k for k, v in DTYPES.items()}[x.dtype.type]
        header[name] = {"dtype": kind, "shape": list(x.shape), "data_offsets": [len(data), len(data) + x.nbytes]}
        data += x.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def read(path):
    with open(path, "rb") as file:
        raw = file.read()
    (size,) = struct.unpack("<Q", raw[:8])
    header, data = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    metadata = header.pop("__metadata__", {})
    return {name: np.frombuffer(data[t["data_offsets"][0] : t["data_offsets"][1]], DTYPES[t["dtype"]]).reshape(t["shape"])
            for name, t in header.items()}, metadata


# ---- numbers with a running error bound --------------------------------------------------------------------------

class Num:
    def __init__(self, x, m=None):
        self.x = np.asarray(x, np.float64)
        self.m = np.abs(self.x) if m is None else np.broadcast_to(m, self.x.shape)

    def __add__(self, o):
        o = num(o)
        return Num(self.x + o.x, self.m + o.m)

    def __sub__(self, o):
        o = num(o)
        return Num(self.x - o.x, self.m + o.m)

    def __mul__(self, o):
        o = num(o)
        return Num(self.x * o.x, np.abs(self.x) * o.m + self.m * np.abs(o.x))

    def __truediv__(self, o):  # 0 where the divisor is 0
        ok = o.x != 0
        d = np.where(ok, o.x, 1)
        return Num(np.where(ok, self.x / d, 0), np.where(ok, self.m / np.abs(d) + np.abs(self.x) * o.m / d**2, 0))

    def __matmul__(self, o):
        return Num(self.x @ o.x, np.abs(self.x) @ o.m + self.m @ np.abs(o.x))

    @property
    def T(self):
        return Num(self.x.T, self.m.T)

    def sum(self, axis):
        return Num(self.x.sum(axis, keepdims=True), self.m.sum(axis, keepdims=True))

    def exp(self, shift=0.0):
        return Num(np.exp(self.x), np.exp(self.x) * (1 + self.m + np.abs(shift)))

    def relu(self):
        return Num(np.maximum(self.x, 0), self.m)

    def where(self, mask):
        return Num(np.where(mask, self.x, 0), np.where(mask, self.m, 0))


def num(x):
    return x if isinstance(x, Num) else Num(x)


def step(u):
    """1 where u > 0. Where rounding can turn u's sign, the step may be either: its magnitude says so."""
    unsure = np.abs(u.x) < C * EPS * u.m
    up = (u.x > 0) * 1.0
    return Num(up, up + unsure / EPS)


# ---- the operators, one head of one sequence ---------------------------------------------------------------------

def features(kind, x, w, scale, eps):
    """phi [n,r] and a function from dL/dphi to dL/dx."""
    root = np.sqrt(scale)
    u = x * root if w is None else (x * root) @ num(w).T
    if kind == "relu":
        positive = step(u)
        phi = u.relu() + eps

        def back(g):
            g = g * positive
            return g * root if w is None else (g @ num(w)) * root

        return phi, back
    half = (x * x).sum(1) * (scale / 2)
    phi = (u - half).exp() * (1 / np.sqrt(len(w)))

    def back(g):
        g = g * phi
        return (g @ num(w)) * root - x * scale * g.sum(1)

    return phi, back


def guarded(D, guard):
    """D after the guard, and its derivative."""
    name, _, value = guard.partition(":")
    X = float(value or 0)
    if name == "add":
        return D + X, Num(np.ones_like(D.x))
    if name in ("clamp", "abs", "sign"):  # the kernels here are never negative: |D| = D
        return Num(np.maximum(D.x, X), D.m + X), step(D - X)
    return D, Num(np.ones_like(D.x))


def head(case, q, k, v, w, dy):
    """y, weights and gradients of one head of one sequence."""
    kind, causal = case["kind"], case.get("causal", False)
    q, k, v = Num(q), Num(k), Num(v)
    nq, nk = len(q.x), len(k.x)
    mask = np.tril(np.ones((nq, nk), bool)) if causal else np.ones((nq, nk), bool)
    if kind == "identity":
        out = {"y": v, "weights": Num(np.eye(nq, nk))}
        return out if dy is None else dict(out, dq=q * 0.0, dk=k * 0.0, dv=Num(dy))
    scale, eps = case["scale"], case.get("epsilon", 1e-3)
    if kind == "exact":
        u = (q @ k.T) * scale
        top = np.max(np.where(mask, u.m, 0), 1, keepdims=True, initial=0)
        A = u.exp(top).where(mask)
    else:
        fq, back_q = features(kind, q, w, scale, eps)
        fk, back_k = features(kind, k, w, scale, eps)
        A = (fq @ fk.T).where(mask)
    N, D = A @ v, A.sum(1)
    guard = case.get("denominator", "none")
    if guard == "off":
        G, slope = Num(np.ones((nq, 1))), Num(np.zeros((nq, 1)))
    else:
        G, slope = guarded(D, guard)
    y = N / G
    live = np.broadcast_to((D.m > 0) & (G.x != 0), y.x.shape)
    y = y.where(live)
    out = {"y": y, "weights": (A / G).where(live[:, :1])}
    if dy is None:
        return out
    dN = (Num(dy) / G).where(live)
    dD = ((dN * y).sum(1) * slope) * -1.0
    dA = (dN @ v.T + dD).where(mask)
    if kind == "exact":
        dU = dA * A * scale
        dq, dk = dU @ k, dU.T @ q
    else:
        dq, dk = back_q(dA @ fk), back_k(dA.T @ fq)
    return dict(out, dq=dq, dk=dk, dv=A.T @ dN)


def reference(case, t, w):
    """All sequences and heads. t: tensors as float64, w: [H,m,d] or None."""
    q, k, v, dy = t["q"], t["k"], t["v"], t.get("dy")
    (Tq, H, d), (Tk, G, dv) = q.shape, v.shape
    oq = t.get("offsets_q", np.array([0, Tq]))
    ok = t.get("offsets_k", t.get("offsets_q", np.array([0, Tk])))
    case = dict(case, scale=case.get("scale") or (1.0 if case["kind"] == "relu" else d ** -0.5))
    shapes = {"y": (Tq, H, dv), "weights": (H, Tq, Tk)}
    if dy is not None:
        shapes.update(dq=(Tq, H, d), dk=(Tk, G, d), dv=(Tk, G, dv))
    out = {name: Num(np.zeros(shape)) for name, shape in shapes.items()}
    for s in range(len(oq) - 1):
        a, b = slice(oq[s], oq[s + 1]), slice(ok[s], ok[s + 1])
        for h in range(H):
            g = h * G // H
            r = head(case, q[a, h], k[b, g], v[b, g], None if w is None else w[h], None if dy is None else dy[a, h])
            for name, index in (("y", (a, h)), ("dq", (a, h)), ("dk", (b, g)), ("dv", (b, g)), ("weights", (h, a, b))):
                if name in out:  # heads that share keys add up
                    out[name].x[index] += r[name].x
                    out[name].m[index] += r[name].m
    return out


# ---- running the program -----------------------------------------------------------------------------------------

class Runner:
    def __init__(self, program):
        self.program, self.folder = program, tempfile.mkdtemp(prefix="favor-oracle-")
        self.count = 0

    def path(self, name):
        self.count += 1
        return os.path.join(self.folder, "%05d-%s" % (self.count, name))

    def apply(self, tensors, kind, *options, source=None):
        """Outputs (None when it failed), exit code and messages."""
        source, target = source or self.path("in"), self.path("out")
        if tensors is not None:
            write(source, tensors)
        words = [self.program, "apply", "-i", source, "-o", target, "--attention", kind] + [str(o) for o in options]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        ok = done.returncode == 0
        return (read(target)[0] if ok else None), done.returncode, done.stderr


def worst(got, want):
    """Largest |err| / (eps m) over the entries; infinite where m is 0 and the error is not."""
    got = np.asarray(got, np.float64)
    if got.shape != want.x.shape:
        return float("inf")
    err, bound = np.abs(got - want.x), EPS * want.m + 1e-37
    return float(np.max(err / bound, initial=0)) if np.isfinite(got).all() else float("inf")


FLAGS = {"causal": "--causal", "scale": "--scale", "epsilon": "--epsilon", "denominator": "--denominator",
         "chunk": "--chunk", "threads": "--threads", "projection": "--projection", "features": "--features",
         "row_norms": "--row-norms", "seed": "--projection-seed", "cpu": "--cpu"}


def options_of(case):
    words = []
    for key, flag in FLAGS.items():
        if case.get(key) is not None and case[key] is not False:
            words += [flag] if case[key] is True else [flag, case[key]]
    return words


def random_tensors(rng, case):
    """Small-norm inputs (positive features cannot estimate large ones), offsets with empty sequences."""
    H, G, d, dv = case["H"], case["G"], case["d"], case["dv"]
    lengths_q = case["lengths"]
    lengths_k = lengths_q if case.get("causal") or case["kind"] == "identity" else case.get("lengths_k", lengths_q)
    Tq, Tk = sum(lengths_q), sum(lengths_k)
    std = case.get("std", 0.5)
    draw = lambda *shape: (std * rng.standard_normal(shape)).astype(np.float32)
    t = {"q": draw(Tq, H, d), "k": draw(Tk, G, d), "v": draw(Tk, G, dv)}
    if case.get("gradients"):
        t["dy"] = draw(Tq, H, dv)
    if len(lengths_q) != 1 or case.get("write_offsets"):
        t["offsets_q"] = np.cumsum([0] + lengths_q).astype(np.int64)
    if lengths_k is not lengths_q and len(lengths_k) != 1:
        t["offsets_k"] = np.cumsum([0] + lengths_k).astype(np.int64)
    if case.get("given"):
        shape = (case["m"], d) if case["given"] == "shared" else (H, case["m"], d)
        t["projection"] = rng.standard_normal(shape).astype(np.float32)
    return t


def widened(t):
    return {name: x if x.dtype.kind == "i" else x.astype(np.float64) for name, x in t.items()}


def check_case(run, case, seed):
    """One random case: every output against the reference. Returns a complaint or None, and the worst ratios."""
    rng = np.random.default_rng(seed)
    t = random_tensors(rng, case)
    words = options_of(case)
    projected = case["kind"] == "favor+" or case.get("given") or case.get("projection", "none") != "none"
    projected = projected and case["kind"] in ("favor+", "relu")
    if projected:
        words += ["--write", "projection"]
    rows = [i for i in case.get("rows", []) if i < len(t["q"])]
    if rows:
        words += ["--rows", ",".join(map(str, rows))]
    got, code, message = run.apply(t, case["kind"], *words)
    if got is None:
        return "exit %d: %s" % (code, message.strip()), {}
    w = got["projection"].astype(np.float64) if projected else None
    if case.get("given") and not np.array_equal(got["projection"], np.broadcast_to(t["projection"], got["projection"].shape)):
        return "the given projection was not used", {}
    want = reference(case, widened(t), w)
    want["weights"] = Num(want["weights"].x[:, rows], want["weights"].m[:, rows])
    names = ["y"] + (["dq", "dk", "dv"] if case.get("gradients") else []) + (["weights"] if rows else [])
    expected = set(names) | ({"projection"} if projected else set())
    if set(got) != expected:
        return "outputs %s, expected %s" % (sorted(got), sorted(expected)), {}
    ratios = {name: worst(got[name], want[name]) for name in names}
    bad = {name: ratio for name, ratio in ratios.items() if not ratio <= C}
    return ("error in units of eps*m: %s" % bad if bad else None), ratios


# ---- random cases ------------------------------------------------------------------------------------------------

def lengths(rng, longest):
    count = int(rng.choice([1, 1, 2, 4]))
    return [int(rng.integers(0, longest)) if count > 1 and rng.random() < 0.3 else int(rng.integers(1, longest + 1))
            for _ in range(count)]


def random_case(rng, kind):
    case = {"kind": kind, "gradients": bool(rng.random() < 0.7), "causal": bool(rng.random() < 0.5)}
    case["G"] = int(rng.choice([1, 1, 2, 3]))
    case["H"] = case["G"] * int(rng.choice([1, 1, 2, 3]))
    case["d"] = int(rng.choice([1, 2, 3, 5, 8, 16, 17, 33, 64]))
    case["dv"] = case["d"] if rng.random() < 0.5 else int(rng.choice([1, 2, 7, 16, 31]))
    case["lengths"] = lengths(rng, int(rng.choice([3, 20, 70, 300])))
    if rng.random() < 0.5:  # cross attention
        case["lengths_k"] = [int(rng.integers(0, 90)) for _ in case["lengths"]]
    if rng.random() < 0.4:
        case["rows"] = sorted(set(int(i) for i in rng.integers(0, max(1, sum(case["lengths"])), 3)))
    if rng.random() < 0.3:
        case["scale"] = float(rng.choice([0.125, 0.5, 1.0]))
    if rng.random() < 0.4:
        case["chunk"] = int(rng.choice([1, 2, 7, 16, 33, 64]))
    case["threads"] = int(rng.choice([1, 2]))
    if kind == "relu" and rng.random() < 0.4:
        case["epsilon"] = float(rng.choice([0.0, 0.25, 1e-2]))
    if kind in ("favor+", "relu") and rng.random() < 0.4:
        case["denominator"] = str(rng.choice(["none", "off", "add:0.5", "clamp:2", "abs:1.5", "sign:1"]))
    if kind == "favor+" or (kind == "relu" and rng.random() < 0.5):
        case["m"] = int(rng.choice([1, 3, 16, 40, 65]))
        if rng.random() < 0.6:
            case["given"] = str(rng.choice(["shared", "own"]))
            if rng.random() < 0.3:
                case["features"] = case["m"]
        else:
            case["projection"] = str(rng.choice(["iid", "orthogonal"]))
            case["row_norms"] = str(rng.choice(["chi", "sqrt-d"]))
            case["features"], case["seed"] = case["m"], int(rng.integers(0, 1000))
    return case


def shape_sweep():
    """Every kind at lengths around nothing, one, and the borders of chunks and tiles."""
    for kind in ("exact", "favor+", "relu", "identity"):
        for causal in (False, True):
            for n in (1, 2, 63, 64, 65, 127, 128, 129, 257, 1100):
                yield {"kind": kind, "causal": causal, "gradients": True, "H": 2, "G": 1, "d": 9, "dv": 6, "lengths": [n],
                       "rows": [0, n // 2, n - 1]}


# ---- laws and files ----------------------------------------------------------------------------------------------

def basic(rng, n=37, kind="favor+", **more):
    case = dict({"kind": kind, "H": 4, "G": 2, "d": 8, "dv": 5, "lengths": [n], "m": 24}, **more)
    return case, random_tensors(rng, case)


def law_projection(run, rng):
    """Drawn matrices: a function of the seed, heads apart, orthogonal in blocks, norms as asked."""
    d, m = 8, 21
    case, t = basic(rng)
    draw = lambda *o: run.apply(t, "favor+", "--features", m, "--write", "projection", *o)[0]["projection"].astype(float)
    a, again, other = draw("--projection-seed", 3), draw("--projection-seed", 3), draw("--projection-seed", 4)
    assert a.shape == (4, m, d) and np.array_equal(a, again) and not np.array_equal(a, other)
    assert not np.array_equal(a[0], a[1])
    for w in a:
        for b in range(0, m, d):
            gram = w[b : b + d] @ w[b : b + d].T
            assert np.max(np.abs(gram - np.diag(np.diag(gram)))) < 64 * EPS * d * np.max(np.diag(gram)), "not orthogonal"
    norms = np.linalg.norm(draw("--row-norms", "sqrt-d"), axis=2)
    assert np.max(np.abs(norms - np.sqrt(d))) < 64 * EPS * np.sqrt(d)
    assert np.std(np.linalg.norm(a, axis=2)) > 0.1
    iid = draw("--projection", "iid")
    assert abs(np.mean(iid)) < 0.2 and 0.8 < np.std(iid) < 1.2
    default = run.apply(t, "favor+", "--write", "projection")[0]["projection"]
    assert default.shape[1] == 32, "default features"  # ceil(8 ln 8) = 17, up to a multiple of 16


def law_default_denominator(run, rng):
    """A row of relu features that are all 0 (epsilon 0) has no normaliser: y = 0 and zero gradients."""
    case, t = basic(rng, kind="relu", gradients=True)
    t["q"][5] = -np.abs(t["q"][5])
    got = run.apply(t, "relu", "--epsilon", 0)[0]
    assert not got["y"][5].any() and not got["dq"][5].any() and np.isfinite(got["dk"]).all()


def law_threads(run, rng):
    """Bits do not depend on the number of threads, nor on what else is packed with a sequence."""
    for kind in ("exact", "favor+", "relu"):
        for flags in ([], ["--causal"]):
            case, t = basic(rng, kind=kind, lengths=[300, 0, 77], gradients=True)
            one, two = (run.apply(t, kind, "--threads", n, *flags)[0] for n in (1, 2))
            assert all(np.array_equal(one[x], two[x]) for x in one), "%s %s: threads change bits" % (kind, flags)
            alone = {x: t[x][300:] for x in ("q", "k", "v", "dy")}
            got = run.apply(alone, kind, *flags)[0]
            assert all(np.array_equal(got[x], one[x][300:]) for x in got), "%s %s: packing changes bits" % (kind, flags)


def law_causality(run, rng):
    """A later token changes no earlier output, bitwise, however large."""
    for kind in ("exact", "favor+", "relu"):
        case, t = basic(rng, n=150, kind=kind)
        before = run.apply(t, kind, "--causal")[0]["y"]
        t["k"][101] *= 30
        t["v"][101] = np.nan
        after = run.apply(t, kind, "--causal")[0]["y"]
        assert np.array_equal(before[:101], after[:101]), "%s: the past saw the future" % kind
        assert np.isnan(after[101:]).all(), "%s: a NaN was lost" % kind


def law_rows(run, rng):
    """Rows of the implied matrix sum to one."""
    for kind in ("exact", "favor+", "relu", "identity"):
        case, t = basic(rng, kind=kind, lengths=[20, 17], write_offsets=True)
        got = run.apply(t, kind, "--causal", "--rows", "0,19,20,36")[0]["weights"]
        assert np.max(np.abs(got.astype(float).sum(2) - 1)) < 64 * EPS, "%s: rows do not sum to one" % kind
        assert not got[:, :2, 20:].any() and not got[:, 2:, :20].any(), "%s: rows cross sequences" % kind


def law_types(run, rng):
    """F64 and BF16 inputs give what F32 gives."""
    case, t = basic(rng, gradients=True)
    exactly = {name: (x.view(np.uint32) & 0xFFFF0000).view(np.float32) for name, x in t.items()}
    want = run.apply(exactly, "favor+")[0]
    for convert in (lambda x: x.astype(np.float64), bf16):
        got = run.apply({name: convert(x) for name, x in exactly.items()}, "favor+")[0]
        assert all(np.array_equal(got[x], want[x]) and got[x].dtype == np.float32 for x in want)


def split(t, cuts):
    """Tensors of the pieces of packed sequences, each cut at its place: first parts and second parts."""
    offsets = t.get("offsets_q", np.array([0, len(t["q"])]))
    pieces = ([], [])
    for s, cut in enumerate(cuts):
        a, b = offsets[s], offsets[s + 1]
        pieces[0].append(np.arange(a, a + cut))
        pieces[1].append(np.arange(a + cut, b))
    out = []
    for piece in pieces:
        index = np.concatenate(piece)
        part = {x: t[x][index] for x in ("q", "k", "v")}
        part["offsets_q"] = np.cumsum([0] + [len(p) for p in piece]).astype(np.int64)
        out.append((part, index))
    return out


def law_streaming(run, rng):
    """Two runs joined by a state file are the whole run."""
    for kind in ("favor+", "relu", "exact"):
        for trial in range(3):
            sizes = [[50], [130, 1, 64], [200, 3]][trial]
            case, t = basic(rng, kind=kind, lengths=sizes, causal=True, write_offsets=True)
            flags = ["--causal"] + (["--projection-seed", 9] if kind == "favor+" else [])
            whole = run.apply(t, kind, *flags)[0]["y"]
            w = None
            if kind == "favor+":
                w = run.apply(t, kind, "--write", "projection", *flags)[0]["projection"].astype(float)
            want = reference(case, widened(t), w)["y"]
            (first, i1), (second, i2) = split(t, [int(rng.integers(0, n + 1)) for n in sizes])
            state, end = run.path("state"), run.path("state")
            a, code, message = run.apply(first, kind, "--state-out", state, *flags)
            assert code == 0, message
            b, code, message = run.apply(second, kind, "--state-in", state, "--state-out", end, *flags)
            assert code == 0, message
            joined = np.empty_like(whole)
            joined[i1], joined[i2] = a["y"], b["y"]
            ratio = worst(joined, want)
            assert ratio <= C, "%s: streaming is off by %g eps*m" % (kind, ratio)
            held = read(end)[0]
            assert list(held["tokens"]) == sizes
            if kind != "exact":
                check_state(case, t, held, w)
            else:
                assert np.array_equal(held["keys"], t["k"]) and np.array_equal(held["values"], t["v"])


def check_state(case, t, held, w):
    """S 2^exponent = sum over keys of phi v^T, z 2^exponent = sum of phi (up to favor+'s 1/sqrt(m))."""
    offsets = t["offsets_q"]
    scale = 1.0 if case["kind"] == "relu" else case["d"] ** -0.5
    for s in range(len(offsets) - 1):
        part = slice(offsets[s], offsets[s + 1])
        for h in range(case["H"]):
            g = h * case["G"] // case["H"]
            phi, _ = features(case["kind"], Num(t["k"][part, g]), None if w is None else w[h], scale, 1e-3)
            if case["kind"] == "favor+":
                phi = phi * np.sqrt(len(w[h]))
            power = np.exp2(held["exponent"][s, h].astype(float))[:, None]
            assert worst(held["S"][s, h] * power, phi.T @ Num(t["v"][part, g])) <= C, "S"
            assert worst(held["z"][s, h][:, None] * power, phi.T.sum(1)) <= C, "z"


def law_state_refused(run, rng):
    """A state of another projection, setting or kind is a bad file; gradients through one are wrong use."""
    case, t = basic(rng, lengths=[12], causal=True)
    state = run.path("state")
    flags = ["--causal", "--projection-seed", 1, "--state-out", state]
    assert run.apply(t, "favor+", *flags)[1] == 0
    tries = [(["--causal", "--projection-seed", 2], "favor+", 3), (["--causal", "--scale", "0.7"], "favor+", 3),
             (["--causal", "--features", 17], "favor+", 3), (["--causal"], "relu", 3), (["--causal"], "exact", 3),
             ([], "favor+", 2), (["--causal", "--projection-seed", 1, "--chunk", 5], "favor+", 0),
             (["--causal", "--projection-seed", 1, "--rows", 1], "favor+", 2)]
    for words, kind, expected in tries:
        got, code, message = run.apply(t, kind, "--state-in", state, *words)
        assert code == expected, "%s %s: exit %d, expected %d: %s" % (kind, words, code, expected, message)
    code = run.apply(dict(t, dy=t["v"][:, [0, 0, 1, 1]]), "favor+", "--causal", "--projection-seed", 1, "--state-in", state)[1]
    assert code == 2, "gradients through a state: exit %d" % code
    graded = dict(t, dy=t["v"][:, [0, 0, 1, 1]])
    end = run.path("end")
    plain = run.apply(graded, "favor+", "--causal", "--projection-seed", 1)[0]
    got, code, message = run.apply(graded, "favor+", "--causal", "--projection-seed", 1, "--state-out", end)
    assert code == 0, message
    assert all(np.array_equal(got[name], plain[name]) for name in plain), "gradients beside a state"
    assert open(end, "rb").read() == open(state, "rb").read(), "a state beside gradients"
    two = dict(t, offsets_q=np.array([0, 5, 12], np.int64))
    assert run.apply(two, "favor+", "--causal", "--projection-seed", 1, "--state-in", state)[1] == 3
    raw = open(state, "rb").read()
    for cut in (4, 20, len(raw) - 1):
        short = run.path("short")
        open(short, "wb").write(raw[:cut])
        assert run.apply(t, "favor+", "--causal", "--projection-seed", 1, "--state-in", short)[1] == 3
    held, metadata = read(state)
    held = dict(held, tokens=-held["tokens"])
    write(state, held, metadata)
    assert run.apply(t, "favor+", "--causal", "--projection-seed", 1, "--state-in", state)[1] == 3


# ---- bad input -----------------------------------------------------------------------------------------------------

def bad_inputs(rng):
    """(name, tensors, kind, options, exit code, words of the message)"""
    _, t = basic(rng, gradients=True)
    I = lambda *x: np.array(x, np.int64)
    less = lambda *names: {x: y for x, y in t.items() if x not in names}
    plus = lambda **more: dict(t, **more)
    z = lambda *shape: np.zeros(shape, np.float32)
    yield "no q", less("q"), "exact", [], 3, ["tensor q"]
    yield "no k", less("k"), "exact", [], 3, ["tensor k"]
    yield "no v", less("v"), "exact", [], 3, ["tensor v"]
    yield "q of rank 2", plus(q=z(37, 8)), "exact", [], 3, ["tensor q", "[37,8]"]
    yield "q of type I64", plus(q=np.zeros((37, 4, 8), np.int64)), "exact", [], 3, ["tensor q", "I64"]
    yield "q without width", plus(q=z(37, 4, 0)), "exact", [], 3, ["tensor q"]
    yield "k of another width", plus(k=z(37, 2, 9)), "exact", [], 3, ["tensor k", "expected"]
    yield "heads that do not divide", plus(k=z(37, 3, 8), v=z(37, 3, 5)), "exact", [], 3, ["tensor k"]
    yield "v of another length", plus(v=z(36, 2, 5)), "exact", [], 3, ["tensor v"]
    yield "v of other heads", plus(v=z(37, 1, 5)), "exact", [], 3, ["tensor v"]
    yield "dy of another width", plus(dy=z(37, 4, 6)), "exact", [], 3, ["tensor dy"]
    yield "dy of another length", plus(dy=z(36, 4, 5)), "exact", [], 3, ["tensor dy"]
    yield "offsets that begin late", plus(offsets_q=I(1, 37)), "exact", [], 3, ["offsets_q"]
    yield "offsets that end early", plus(offsets_q=I(0, 36)), "exact", [], 3, ["offsets_q", "37"]
    yield "offsets that decrease", plus(offsets_q=I(0, 20, 10, 37)), "exact", [], 3, ["offsets_q"]
    yield "offsets past the end", plus(offsets_q=I(0, 99, 37)), "exact", [], 3, ["offsets_q"]
    yield "negative offsets", plus(offsets_q=I(0, -5, 37)), "exact", [], 3, ["offsets_q"]
    yield "offsets of floats", plus(offsets_q=np.array([0, 37], np.float32)), "exact", [], 3, ["offsets_q"]
    yield "offsets of rank 2", plus(offsets_q=I(0, 37).reshape(1, 2)), "exact", [], 3, ["offsets_q"]
    yield "no offsets", plus(offsets_q=I()), "exact", [], 3, ["offsets_q"]
    yield "other sequences", plus(offsets_q=I(0, 20, 37), offsets_k=I(0, 37)), "exact", [], 3, ["offsets_k"]
    yield "offsets_k missing", dict(less("dy"), q=z(5, 4, 8), offsets_q=I(0, 5)), "exact", [], 3, ["offsets_k"]
    yield "projection of another width", plus(projection=z(16, 9)), "favor+", [], 3, ["tensor projection"]
    yield "projection of other heads", plus(projection=z(2, 16, 8)), "favor+", [], 3, ["tensor projection"]
    yield "projection of rank 1", plus(projection=z(16)), "favor+", [], 3, ["tensor projection"]
    yield "projection without rows", plus(projection=z(0, 8)), "favor+", [], 3, ["tensor projection"]
    yield "projection and --features", plus(projection=z(16, 8)), "favor+", ["--features", 17], 3, ["tensor projection", "17"]
    yield "unknown tensor", plus(bias=z(3)), "exact", [], 3, ["tensor bias"]
    for other in ("linformer_e", "map_weight", "bandwidth", "lsh_rotations", "rmf_signs"):
        yield "tensor of another kind " + other, plus(**{other: z(37, 4)}), "favor+", [], 2, ["tensor " + other]
    yield "gate without causal", plus(gate=z(37, 4) + 0.5), "favor+", [], 2, ["gate"]
    yield "decay without causal", plus(decay=z(4) + 0.5), "favor+", [], 2, ["decay"]
    yield "gate of exact", plus(gate=z(37, 4) + 0.5), "exact", ["--causal"], 2, ["tensor gate"]
    yield "no position_bias", t, "exact", ["--position-bias", "fastrpb"], 3, ["tensor position_bias", "[4,73]"]
    yield "even position_bias", plus(position_bias=z(4, 72)), "exact", ["--position-bias", "fastrpb"], 3, ["tensor position_bias"]
    yield "unknown attention", t, "favour+", [], 2, ["favour+"]
    yield "unknown option", t, "exact", ["--bogus"], 2, ["--bogus"]
    yield "unknown projection", t, "favor+", ["--projection", "bogus"], 2, ["bogus"]
    yield "unknown denominator", t, "favor+", ["--denominator", "max:1"], 2, ["max:1"]
    yield "denominator without value", t, "favor+", ["--denominator", "add"], 2, ["add"]
    yield "epsilon of favor+", t, "favor+", ["--epsilon", "1e-3"], 2, ["epsilon"]
    yield "epsilon of exact", t, "exact", ["--epsilon", "1e-3"], 2, ["epsilon"]
    yield "negative epsilon", t, "relu", ["--epsilon", "-1"], 2, ["epsilon"]
    yield "no projection for favor+", t, "favor+", ["--projection", "none"], 2, ["none"]
    yield "given projection, none", plus(projection=z(16, 8)), "relu", ["--projection", "none"], 2, ["projection"]
    yield "projection for exact", plus(projection=z(16, 8)), "exact", [], 2, ["projection"]
    yield "write what is not", t, "exact", ["--write", "projection"], 2, ["projection"]
    yield "write unknown", t, "favor+", ["--write", "bogus"], 2, ["bogus"]
    yield "chunk 0", t, "favor+", ["--causal", "--chunk", 0], 2, ["chunk"]
    yield "features 0.5", t, "favor+", ["--features", "0.5"], 2, ["features"]
    yield "negative features", t, "favor+", ["--features", -4], 2, ["features"]
    yield "row past the end", t, "exact", ["--rows", 37], 2, ["37"]
    yield "row -1", t, "exact", ["--rows", -1], 2, ["-1"]
    yield "row x", t, "exact", ["--rows", "1,x"], 2, ["x"]
    cross = dict(less("dy"), k=z(20, 2, 8), v=z(20, 2, 5))
    yield "causal cross", cross, "exact", ["--causal"], 2, ["causal"]
    yield "identity cross", cross, "identity", [], 2, []
    yield "state of a bidirectional run", less("dy"), "favor+", ["--state-out", os.devnull], 2, ["state-out"]
    yield "unknown processor", t, "exact", ["--cpu", "z80"], 2, ["z80"]
    yield "missing state", less("dy"), "favor+", ["--causal", "--state-in", "/nonexistent/state"], 3, ["/nonexistent/state"]


def check_bad(run, row):
    name, tensors, kind, options, expected, words = row
    _, code, message = run.apply(tensors, kind, *options)
    if code != expected:
        return "exit %d, expected %d: %s" % (code, expected, message.strip())
    lost = [word for word in words if word not in message]
    return "the message does not say %s: %s" % (lost, message.strip()) if lost or "favor:" not in message else None


def damaged_files(run, rng):
    """Files that are no safetensors at all."""
    _, t = basic(rng)
    whole = run.path("whole")
    write(whole, t)
    raw = open(whole, "rb").read()
    (size,) = struct.unpack("<Q", raw[:8])
    text = raw[8 : 8 + size]
    pack = lambda header, body=raw[8 + size :]: struct.pack("<Q", len(header)) + header + body
    files = {"empty": b"", "seven bytes": raw[:7], "cut header": raw[:40], "cut data": raw[:-1], "longer": raw + b"x",
             "hostile length": struct.pack("<Q", 2**63) + raw[8:], "length past the end": struct.pack("<Q", 2**27) + raw[8:],
             "no JSON": pack(b"{" * 64), "array": pack(b"[]"), "binary": bytes(range(256)) * 4,
             "negative shape": pack(text.replace(b"[37, 4, 8]", b"[-7, 4, 8]")),
             "huge shape": pack(text.replace(b"[37, 4, 8]", b"[4611686018427387904, 4, 8]")),
             "unknown type": pack(text.replace(b"F32", b"F99"))}
    for name, content in files.items():
        path = run.path("bad")
        open(path, "wb").write(content)
        _, code, message = run.apply(None, "exact", source=path)
        assert code == 3 and path in message, "%s: exit %d: %s" % (name, code, message)
    assert run.apply(None, "exact", source="/nonexistent/file")[1] == 3
    assert run.apply(None, "exact", source=run.folder)[1] == 3


def unwritable(run, rng):
    """An output that cannot be written is exit 4, and leaves nothing behind."""
    _, t = basic(rng)
    source = run.path("in")
    write(source, t)
    done = subprocess.run([run.program, "apply", "-i", source, "-o", "/nonexistent/out", "--attention", "exact"],
                          capture_output=True, text=True)
    assert done.returncode == 4 and "/nonexistent/out" in done.stderr, "exit %d: %s" % (done.returncode, done.stderr)


# ---- everything ----------------------------------------------------------------------------------------------------

LAWS = [law_projection, law_default_denominator, law_threads, law_causality, law_rows, law_types, law_streaming,
        law_state_refused, damaged_files, unwritable]


def attempt(law):
    def job(run, seed):
        try:
            law(run, np.random.default_rng(seed))
            return None, {}
        except AssertionError as e:
            return str(e) or "assertion failed", {}
        except TypeError as e:  # a run that should have worked gave no outputs
            return "unexpected failure: %s" % e, {}
    return job


def jobs(seed):
    """(name, function of the runner giving a complaint or None, and ratios)"""
    rng = np.random.default_rng(seed)
    for law in LAWS:
        yield law.__name__, lambda run, law=law: attempt(law)(run, seed)
    for case in shape_sweep():
        name = "%s %s L=%d" % (case["kind"], "causal" if case["causal"] else "bidirectional", case["lengths"][0])
        yield name, lambda run, case=case: check_case(run, case, seed)
    for i in range(160):
        case = random_case(rng, ["exact", "favor+", "relu", "favor+", "relu", "identity"][i % 6])
        if case["kind"] == "identity":
            case.pop("lengths_k", None)
        yield "random %d %s" % (i, case), lambda run, case=case, i=i: check_case(run, case, seed + i)
    for row in bad_inputs(rng):
        yield "bad input: " + row[0], lambda run, row=row: (check_bad(run, row), {})


def main():
    words = sys.argv[1:]
    value = lambda flag, default: words[words.index(flag) + 1] if flag in words else default
    if not words or words[0].startswith("-"):
        sys.exit("usage: oracle.py PROGRAM [--seed N] [--only TEXT] [--verbose]")
    run, seed, only = Runner(words[0]), int(value("--seed", "1")), value("--only", "")
    todo = [(name, job) for name, job in jobs(seed) if only in name]
    passed, failed, largest, culprit = 0, 0, {}, {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for (name, _), (complaint, ratios) in zip(todo, pool.map(lambda item: item[1](run), todo)):
            for output, ratio in ratios.items():
                if ratio >= largest.get(output, 0):
                    largest[output], culprit[output] = ratio, name
            passed, failed = passed + (complaint is None), failed + (complaint is not None)
            if complaint is not None or "--verbose" in words:
                print("%s %s%s" % ("ok  " if complaint is None else "FAIL", name, ": " + complaint if complaint else ""))
    subprocess.run(["rm", "-rf", run.folder])
    figures = " ".join("%s %.2f" % item for item in sorted(largest.items()))
    if "--verbose" in words:
        for output, name in sorted(culprit.items()):
            print("largest error of %s: %s" % (output, name))
    print("seed %d; largest errors in units of eps*m (allowed %g): %s" % (seed, C, figures))
    print("%d passed, %d failed, 0 skipped" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
