"""Random calls of every kind and modifier, and how the program's outputs are held against the reference."""
import numpy as np
from bounds import C, Num, worst
from kinds import KINDS
from reference import HEAD_RANK, reference

FLAGS = {"causal": "--causal", "scale": "--scale", "epsilon": "--epsilon", "denominator": "--denominator",
         "chunk": "--chunk", "threads": "--threads", "projection": "--projection", "features": "--features",
         "row_norms": "--row-norms", "seed": "--projection-seed", "cpu": "--cpu", "tau": "--tau", "psi": "--psi",
         "rmf_law": "--rmf-law", "rmf_max_degree": "--rmf-max-degree", "window": "--window", "stride": "--stride",
         "block": "--block", "globals": "--globals", "random_blocks": "--random-blocks", "buckets": "--buckets",
         "rounds": "--rounds", "bias": "--position-bias", "skip": "--position-skip", "ppsbn": "--ppsbn",
         "rotary": "--rotary", "rotary_base": "--rotary-base", "trainable": "--trainable-projection",
         "max_tokens": "--max-tokens", "features_trig": "--features-trig", "angle_rows": "--angle-rows"}


def options_of(case):
    words = []
    for key, flag in FLAGS.items():
        if case.get(key) is not None and case[key] is not False:
            words += [flag] if case[key] is True else [flag, case[key]]
    return words


def takes_projection(case):
    if KINDS[case["kind"]].general:
        return bool(case.get("given") or case.get("projection", "none") != "none")
    return KINDS[case["kind"]].projected


# ---- tensors -----------------------------------------------------------------------------------------------------


def random_inputs(rng, case, T, longest):
    """The tensors beside q, k, v that the case gives; optional ones now and then."""
    H, d, dv, m = case["H"], case["d"], case["dv"], case.get("m", 16)
    normal = lambda *shape: rng.standard_normal(shape)
    kind, t = case["kind"], {}
    if case.get("given") and takes_projection(case):
        t["projection"] = normal(H, m, d)
        if kind == "favor-hybrid":
            t["projection_trig"], t["angle_rows"] = normal(H, int(rng.integers(1, 20)), d), normal(H, int(rng.integers(1, 6)), d)
    if kind.startswith("rmf-") and case.get("given"):
        degrees = np.minimum(rng.geometric(0.5, m) - 1, 6)
        t["rmf_degrees"], t["rmf_signs"] = degrees, rng.choice([-1.0, 1.0], (degrees.sum(), d))
    if kind == "reformer" and case.get("given"):
        t["lsh_rotations"] = normal(int(rng.integers(1, 4)), d, int(rng.integers(1, 5)))
    if kind == "linformer":
        rows = int(rng.integers(1, 12))
        columns = longest + int(rng.integers(0, 5))
        t["linformer_e"], t["linformer_f"] = normal(H, rows, columns) / 2, normal(H, rows, columns) / 2
    optional = {"rfa": {"bandwidth": 1 + 0.3 * normal(H, d)}, "rfa-arccos": {"bandwidth": 1 + 0.3 * normal(H, d)},
                "hedgehog": {"map_weight": normal(H, d, d) * d ** -0.5},
                "rebased": {"rebased_gamma": 1 + 0.3 * normal(H, d), "rebased_beta": 0.3 * normal(H, d)},
                "favor#": {"psi_diagonal": 0.5 + rng.random((H, d))}}
    for name, x in optional.get(kind, {}).items():
        if rng.random() < 0.7 or (name == "psi_diagonal" and case.get("causal")):
            t[name] = x
    if case.get("gate"):
        t["gate"] = 1 / (1 + np.exp(-1 - 2 * normal(T, H)))
    if case.get("decay"):
        t["decay"] = 1 - 2.0 ** -rng.uniform(1, 7, H)
    if case.get("bias"):
        n = int(round(longest ** 0.5)) if case["bias"] == "fastrpb-2d" else longest + int(rng.integers(0, 4))
        t["position_bias"] = 0.5 * normal(H, 2 * n - 1)
    if case.get("ppsbn") and rng.random() < 0.7:
        t["ppsbn_gamma"], t["ppsbn_beta"] = 1 + 0.3 * normal(H), 1 + 0.3 * rng.random((H, dv))
    for name in t:
        if case.get("given") == "shared" and t[name].ndim > HEAD_RANK.get(name, 9) > 0:
            t[name] = t[name][0]
        if name != "rmf_degrees":
            t[name] = t[name].astype(np.float32)
    return t


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
    if case["kind"] == "reformer" and rng.random() < 0.5:
        del t["k"]
    t.update(random_inputs(rng, case, Tk, max(lengths_q + lengths_k + [1])))
    return t


def basic(rng, n=37, kind="favor+", **more):
    case = dict({"kind": kind, "H": 4, "G": 2, "d": 8, "dv": 5, "lengths": [n], "m": 24}, **more)
    return case, random_tensors(rng, case)


def widened(t):
    return {name: x if x.dtype.kind == "i" else x.astype(np.float64) for name, x in t.items()}


# ---- one case ----------------------------------------------------------------------------------------------------

BASE = ("q", "k", "v", "dy", "offsets_q", "offsets_k")
DRAWN = ("projection", "projection_trig", "angle_rows", "rmf_degrees", "rmf_signs", "lsh_rotations")


def random_part(run, case, t, words):
    """What bigbird draws cannot be given: it is read off a run's matrix. Far from the diagonal and behind the global
    tokens a query block sees whole blocks, at most as many as were asked for."""
    n, block, front = len(t["q"]), case["block"], case["globals"]
    got, code, message = run.apply(t, case["kind"], "--rows", ",".join(map(str, range(n))), *words)
    assert got is not None, "exit %d: %s" % (code, message)
    seen = got["weights"] > 0
    starts = t.get("offsets_q", np.array([0, n]))
    for h in range(case["H"]):
        for a, b in zip(starts[:-1], starts[1:]):
            for begin in range(a, b, block):
                row = seen[h, min(begin + block, b) - 1, a:b]  # causal: the last row of a block sees most
                i, blocks = (begin - a) // block, -(-(b - a) // block)
                parts = [row[max(j * block, front) : (j + 1) * block] for j in range(blocks) if abs(j - i) > 1]
                far = [part for part in parts if part.any()]
                if begin - a + min(block, b - begin) > front:
                    assert all(part.all() for part in far), "bigbird: a part of a block"
                    assert len(far) <= case["random_blocks"], "bigbird: %d random blocks" % len(far)
    return seen


def check_case(run, case, seed):
    """One random case: every output against the reference. Returns a complaint or None, and the worst ratios."""
    rng = np.random.default_rng(seed)
    t = random_tensors(rng, case)
    words = options_of(case)
    draws = takes_projection(case) or case["kind"].startswith("rmf-") or case["kind"] == "reformer"
    random = random_part(run, case, t, words) if case.get("random_blocks") else None
    if draws:
        words += ["--write", "projection"]
    rows = [i for i in case.get("rows", []) if i < len(t["q"])]
    if rows:
        words += ["--rows", ",".join(map(str, rows))]
    got, code, message = run.apply(t, case["kind"], *words)
    if got is None:
        return "exit %d: %s" % (code, message.strip()), {}
    inputs = {name: x for name, x in t.items() if name not in BASE}
    for name in [name for name in DRAWN if name in got]:
        if name in inputs and not (got[name].ravel()[-1:] == inputs[name].ravel()[-1:]).all():
            return "the given %s was not used" % name, {}
        inputs.setdefault(name, got.pop(name))
        got.pop(name, None)
    wide = widened(t)
    want = reference(case, wide, widened(inputs), random)
    want["weights"] = want["weights"].each(lambda x: x[:, rows])
    if not rows:
        del want["weights"]
    if not case.get("trainable"):
        want.pop("d_projection", None)
    if set(got) != set(want):
        return "outputs %s, expected %s" % (sorted(got), sorted(want)), {}
    ratios = {name: worst(got[name], want[name]) for name in want}
    bad = {name: ratio for name, ratio in ratios.items() if not ratio <= C}
    return ("error in units of eps*m: %s" % bad if bad else None), ratios


# ---- random cases ------------------------------------------------------------------------------------------------


def lengths(rng, longest):
    count = int(rng.choice([1, 1, 2, 4]))
    return [int(rng.integers(0, longest)) if count > 1 and rng.random() < 0.3 else int(rng.integers(1, longest + 1))
            for _ in range(count)]


def own_options(rng, case, info):
    """Options of the kind itself."""
    kind = case["kind"]
    row = KINDS[kind]
    small = lambda low, high: int(rng.integers(low, high))
    if row.general and rng.random() < 0.4:
        case["epsilon"] = float(rng.choice([0.0, 0.25, 1e-2]))
    if row.guarded and rng.random() < 0.4:
        case["denominator"] = str(rng.choice(["none", "off", "add:0.5", "clamp:2", "abs:1.5", "sign:1"]))
    if row.projected or (row.general and rng.random() < 0.5):
        case["m"] = int(rng.choice([1, 3, 16, 40, 65]))
        if rng.random() < 0.6:
            case["given"] = str(rng.choice(["shared", "own"]))
            if rng.random() < 0.3:
                case["features"] = case["m"]
        else:
            case["projection"] = str(rng.choice(["iid", "orthogonal", "givens", "simplex"]))
            case["row_norms"] = str(rng.choice(["chi", "sqrt-d"]))
            case["features"], case["seed"] = case["m"], small(0, 1000)
        case["trainable"] = bool(rng.random() < 0.4)
    if kind.startswith("rmf-"):
        case["m"] = case["features"] = int(rng.choice([1, 5, 16, 33]))
        case["given"] = "shared" if rng.random() < 0.6 else None
        if rng.random() < 0.6:
            case["rmf_law"] = str(rng.choice(["geometric:2", "geometric:3", "poisson:1", "optimal:0.25"]))
        case["rmf_max_degree"] = small(6, 12) if rng.random() < 0.3 else None
    if kind.startswith("rfa") and rng.random() < 0.5:
        case["tau"] = float(rng.choice([0.5, 2.0]))
    if kind in ("favor++", "favor#") and (case["causal"] or rng.random() < 0.3):
        case["psi"] = float(rng.choice([0.3, 1.0, 4.0]))
    if "window" in info["options"]:
        case["window"] = small(0, 20)
    if "stride" in info["options"]:
        case["stride"] = small(1, 9)
    if "block" in info["options"]:
        case["block"] = small(1, 12)
    if "globals" in info["options"]:
        case["globals"] = small(0, case.get("block", 6) if kind == "fixed" else 6)
    if "random_blocks" in info["options"]:
        case["random_blocks"] = small(0, 4)
    if kind == "reformer":
        case["given"] = "own" if rng.random() < 0.7 else None
        if not case["given"]:
            case["buckets"], case["rounds"] = 2 * small(1, 5), small(1, 4)


def modifiers(rng, case, info):
    if case["causal"] and "gate" in info["options"] and rng.random() < 0.35:
        case[str(rng.choice(["gate", "decay"]))] = True
    if rng.random() < 0.3:
        choices = ["fastrpb", "fastrpb-2d"]
        if info["position_bias_kernel"] and not case.get("gate") and not case.get("decay"):
            choices += ["kernel", "kernel"]
        case["bias"] = str(rng.choice(choices))
        if case["bias"] == "fastrpb-2d":
            side = int(rng.integers(1, 9))
            case["lengths"] = [side * side] * len(case["lengths"])
            case.pop("lengths_k", None)
        elif case["bias"] == "fastrpb" and rng.random() < 0.3:
            case["skip"] = int(rng.integers(1, 3))
    if rng.random() < 0.2:
        case["ppsbn"] = True
    if case["d"] % 2 == 0 and rng.random() < 0.25:
        case["rotary"] = True
        case["rotary_base"] = 100.0 if rng.random() < 0.3 else None


def random_case(rng, kind, info):
    case = {"kind": kind, "gradients": bool(rng.random() < 0.75), "causal": bool(rng.random() < 0.5) and info["causal"]}
    case["G"] = int(rng.choice([1, 1, 2, 3]))
    case["H"] = case["G"] * int(rng.choice([1, 1, 2, 3]))
    wide = kind not in ("taylor", "rebased")
    case["d"] = int(rng.choice([1, 2, 3, 5, 8, 16, 17, 33, 64] if wide else [1, 2, 3, 5, 8, 16]))
    case["dv"] = case["d"] if rng.random() < 0.5 else int(rng.choice([1, 2, 7, 16, 31]))
    case["lengths"] = lengths(rng, int(rng.choice([3, 20, 70, 200])))
    own = kind in ("identity", "reformer") or "window" in info["options"] or "block" in info["options"]
    if rng.random() < 0.5 and not own:  # cross attention
        case["lengths_k"] = [int(rng.integers(0, 90)) for _ in case["lengths"]]
    if rng.random() < 0.4 and kind != "linformer":
        case["rows"] = sorted(set(int(i) for i in rng.integers(0, max(1, sum(case["lengths"])), 3)))
    if rng.random() < 0.3:
        case["scale"] = float(rng.choice([0.125, 0.5, 1.0]))
    if rng.random() < 0.4:
        case["chunk"] = int(rng.choice([1, 2, 7, 16, 33, 64]))
    case["threads"] = int(rng.choice([1, 2]))
    own_options(rng, case, info)
    modifiers(rng, case, info)
    return case


def shape_sweep(known):
    """Kinds at lengths around nothing, one, and the borders of chunks and tiles."""
    for kind in ("exact", "favor+", "relu", "identity"):
        for causal in (False, True):
            for n in (1, 2, 63, 64, 65, 127, 128, 129, 257, 1100):
                yield {"kind": kind, "causal": causal, "gradients": True, "H": 2, "G": 1, "d": 9, "dv": 6, "lengths": [n],
                       "rows": [0, n // 2, n - 1]}
