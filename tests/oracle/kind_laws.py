"""Laws that every kind keeps, alone and with modifiers: threads, packing, the past, streams, rows."""
import numpy as np
from bounds import C, EPS, worst
from cases import BASE, DRAWN, check_case, options_of, random_part, random_tensors, widened
from kinds import KINDS
from program import read
from reference import reference

PATTERN = ("window", "stride", "block", "globals", "random_blocks")
MODIFIERS = [{}, {"gate": True}, {"decay": True}, {"rotary": True, "ppsbn": True}, {"bias": "fastrpb"}, {"bias": "kernel"}]


def usual(kind, info, lengths, causal, **more):
    """A call with every option that the kind needs, none at its default."""
    case = {"kind": kind, "H": 4, "G": 2, "d": 8, "dv": 5, "m": 24, "lengths": lengths, "causal": causal, "given": "own",
            "write_offsets": True, "gradients": True}
    wanted = {"psi": 1.0 if causal else None, "window": 6, "stride": 5, "block": 4, "globals": 2, "random_blocks": 1}
    case.update({name: value for name, value in wanted.items() if name in info["options"]})
    if kind == "cosformer":
        case["max_tokens"] = max(lengths)
    return dict(case, **more)


def possible(info, causal, more):
    options = info["options"]
    if more.get("bias") == "kernel" and not info["position_bias_kernel"]:
        return False
    if (more.get("gate") or more.get("decay")) and (not causal or "gate" not in options):
        return False
    return not causal or info["causal"]


def run_case(run, case, t, *more):
    got, code, message = run.apply(t, case["kind"], *options_of(case), *more)
    assert code == 0, "exit %d: %s" % (code, message.strip())
    return got


def part_of(t, a, b):
    """Tokens a .. b-1 as a call of their own."""
    rows = ("q", "k", "v", "dy", "gate")
    return {name: x[a:b] if name in rows else x for name, x in t.items() if name not in ("offsets_q", "offsets_k")}


def packing(run, rng, kind, info, causal, more):
    """Bits do not depend on the number of threads, nor on what else is packed with a sequence."""
    case = usual(kind, info, [190, 0, 37], causal, **more)
    t = random_tensors(rng, case)
    one, two = run_case(run, case, t, "--threads", 1), run_case(run, case, t, "--threads", 2)
    for name in one:
        assert np.array_equal(one[name], two[name]), "threads change bits of %s" % name
    alone = run_case(run, case, part_of(t, 190, 227))
    for name in ("y", "dq", "dk", "dv", "d_gate"):
        if name in alone:
            assert np.array_equal(alone[name], one[name][190:]), "packing changes bits of %s" % name
    for name in ("v", "k", "q"):  # what is no number stays in its sequence
        if name in t:
            t[name][100] = np.nan
    sick = run_case(run, case, t)
    assert np.isnan(sick["y"]).any()
    for name in ("y", "dq", "dk", "dv", "d_gate"):
        if name in sick:
            assert np.array_equal(sick[name][190:], one[name][190:]), "a NaN changes %s of another sequence" % name


def past(run, rng, kind, info, causal, more):
    """A later token changes no earlier output, bitwise, whatever it is."""
    case = usual(kind, info, [150], True, gradients=False, **more)
    t = random_tensors(rng, case)
    before = run_case(run, case, t)["y"]
    for change in (30.0, np.nan, np.inf):
        later = {name: x.copy() for name, x in t.items()}
        for name in ("q", "k", "v"):
            if name in later:
                later[name][101:] *= change
        if "gate" in later:
            later["gate"][101:] *= 0.5
        after = run_case(run, case, later)["y"]
        assert np.array_equal(before[:101], after[:101]), "the past saw the future"


def stream(run, rng, kind, info, causal, more):
    """Two runs joined by a state file are the whole run."""
    sizes, cuts = [60, 1, 33], [41, 0, 33]
    case = usual(kind, info, sizes, True, gradients=False, **more)
    t = random_tensors(rng, case)
    seed = ["--projection-seed", 9, "--write", "projection"] if KINDS[kind].projected else []
    whole = run_case(run, case, t, *seed)
    inputs = {name: x for name, x in t.items() if name not in BASE}
    inputs.update({name: whole[name] for name in DRAWN if name in whole and name not in inputs})
    random = random_part(run, case, t, options_of(case)) if "random_blocks" in case else None
    want = reference(case, widened(t), widened(inputs), random)["y"]
    first, second = [], []
    for begin, size, cut in zip(t["offsets_q"], sizes, cuts):
        first += range(begin, begin + cut)
        second += range(begin + cut, begin + size)
    state, joined = run.path("state"), np.empty_like(whole["y"])
    for rows, lengths, words in ((first, cuts, ["--state-out", state]),
                                 (second, np.subtract(sizes, cuts), ["--state-in", state])):
        part = {name: x[rows] if name in ("q", "k", "v", "gate") else x for name, x in t.items()}
        part["offsets_q"] = np.cumsum([0] + list(lengths)).astype(np.int64)
        joined[rows] = run_case(run, case, part, *words, *seed[:2])["y"]
    ratio = worst(joined, want)
    assert ratio <= C, "streaming is off by %g eps*m" % ratio
    held = read(state)[0]
    assert list(held["tokens"]) == cuts
    assert ("decayed" in held) == bool(more.get("gate") or more.get("decay"))
    if "keys" in held:
        check_keys(case, {name: t[name][first] for name in ("k", "v")}, held, moved=more.get("rotary"))
    other = dict(t, q=t["q"] * 0 + 1)
    changed = {name: case[name] - 1 for name in PATTERN if name in case}
    if "decay" in t:  # a state means nothing under another decay, nor under another pattern
        other["decay"] = t["decay"] * np.float32(0.5)
    for case in ([case] if "decay" in t else []) + [dict(case, **{name: changed[name]}) for name in changed]:
        assert run.apply(other, kind, *options_of(case), "--state-in", state, *seed[:2])[1] == 3


def check_keys(case, t, held, moved):
    """Rows of keys and values: all tokens of a sequence; with a window the global ones, then a ring of the last ones."""
    front = case["globals"] if case["kind"] == "longformer" else 0
    ring = case["window"] if case["kind"] in ("window", "longformer") else max(held["tokens"])
    want, begin = [], 0
    for n in held["tokens"]:
        rows = list(range(min(n, front + ring)))
        for token in range(front, n):
            rows[front + (token - front) % ring] = token
        want += [begin + row for row in rows]
        begin += n
    assert held["keys"].shape == t["k"][want].shape
    assert moved or np.array_equal(held["keys"], t["k"][want])
    assert np.array_equal(held["values"], t["v"][want])


def ones(run, rng, kind, info, causal, more):
    """Rows of the implied matrix sum to one and stay in their sequence; constant values come back."""
    case = usual(kind, info, [20, 17], causal, gradients=False, **more)
    t = random_tensors(rng, case)
    t["v"][:] = 2.5
    got = run_case(run, case, t, *([] if kind == "linformer" else ["--rows", "0,19,20,36"]))
    if kind != "linformer" and KINDS[kind].default == "none":
        rows = got["weights"].astype(float).sum(2)
        live = rows != 0  # features that are all 0 for a query and its keys leave it without a normaliser
        assert np.max(np.abs(rows[live] - 1)) < 64 * EPS, "rows do not sum to one"
        if not more:
            y = got["y"][[0, 19, 20, 36]].transpose(1, 0, 2)[live].astype(float)
            assert np.max(np.abs(y - 2.5)) < 256 * EPS, "constant values do not come back"
    if kind != "linformer":
        assert not got["weights"][:, :2, 20:].any() and not got["weights"][:, 2:, :20].any(), "rows cross sequences"


def kind_laws(known):
    """(name, function of runner and generator); modifiers with every third kind, all of them over the table."""
    for place, (kind, info) in enumerate(item for item in known.items() if item[0] in KINDS):
        for at, more in enumerate(MODIFIERS):
            if at > 0 and (place + at) % 3 != 0 and kind not in ("exact", "favor+"):
                continue
            for causal in (False, True):
                # Reformer's later tokens move the borders of chunks: which earlier keys a query meets depends on them.
                for law in (packing, ones) + ((past,) if causal and kind != "reformer" else ()):
                    if possible(info, causal, more):
                        yield law, kind, info, causal, more
            if info["stream"] and possible(info, True, more) and "bias" not in more:
                yield stream, kind, info, True, more
