"""Laws that need no formulas of a kind, states, and what must be refused."""
import os, struct, subprocess
import numpy as np
from bounds import C, EPS, Num, var, worst
from cases import basic, widened
from kinds import FUNCTIONS, generalized, positive
from program import bf16, read, write
from reference import options_of_head, reference

# ---- laws ----------------------------------------------------------------------------------------------

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
            want = reference(case, widened(t), {} if w is None else {"projection": w})["y"]
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
        for n in range(case["H"]):
            g = n * case["G"] // case["H"]
            h = options_of_head(case, case["d"])
            x = var(t["k"][part, g].astype(float) * np.sqrt(scale))
            if case["kind"] == "favor+":
                phi = (positive(x, h, var(w[n])) * np.sqrt(len(w[n]))).n
            else:
                phi = generalized(FUNCTIONS["relu"])(x, h).n
            power = np.exp2(held["exponent"][s, n].astype(float))[:, None]
            assert worst(held["S"][s, n] * power, phi.each(np.transpose) @ Num(t["v"][part, g])) <= C, "S"
            assert worst(held["z"][s, n][:, None] * power, phi.each(lambda p: p.sum(0)[:, None])) <= C, "z"


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


LAWS = [law_projection, law_default_denominator, law_threads, law_causality, law_rows, law_types, law_streaming,
        law_state_refused]
