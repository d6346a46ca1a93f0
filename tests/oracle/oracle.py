#!/usr/bin/env python3
"""An outside oracle for favor's attention: NumPy in float64, driving `favor apply`.

    oracle.py PROGRAM [--seed N] [--cases N] [--only TEXT] [--verbose]

kinds.py and reference.py state every kind and modifier once more, from the formulas, in plain dense matrices; bounds.py
says how far a float32 computation may be off. Kinds come from `favor info`: one without a formula here is a failure.
Ends with "N passed, N failed, N skipped". Exit code 0, 1 (failures) or 77 (no NumPy: skipped).
"""
import os, subprocess, sys, traceback
from concurrent.futures import ThreadPoolExecutor

try:
    import numpy as np
except ImportError:
    if sys.executable != "/usr/bin/python3" and os.path.exists("/usr/bin/python3"):
        os.execv("/usr/bin/python3", ["/usr/bin/python3"] + sys.argv)
    print("skipped: NumPy is missing (Debian: python3-numpy)")
    print("0 passed, 0 failed, 1 skipped")
    sys.exit(77)

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from bounds import C
from cases import check_case, random_case, shape_sweep
from kind_laws import kind_laws
from kinds import KINDS
from laws import LAWS
from program import Runner
from refusals import FILES, bad_inputs, check_bad

PLAIN = ("exact", "favor+", "relu", "identity")  # met more often: all else is built on them


def attempt(job, run):
    """The job's complaint and ratios; whatever goes wrong in it is a complaint."""
    try:
        return job(run) or (None, {})
    except AssertionError as e:
        return str(e) or "assertion failed", {}
    except Exception:
        return traceback.format_exc(), {}


def jobs(run, seed, count):
    """(name, function of the runner giving a complaint or None, and ratios)"""
    rng, known = np.random.default_rng(seed), run.kinds()
    for law in LAWS + FILES:
        yield law.__name__, lambda run, law=law: law(run, np.random.default_rng(seed))
    for law, *what in kind_laws(known):
        kind, _, causal, more = what
        name = "law of %s: %s%s %s" % (law.__name__, kind, " causal" if causal else "", more or "")
        yield name, lambda run, law=law, what=what: law(run, np.random.default_rng(seed), *what)
    for case in shape_sweep(known):
        name = "%s %s L=%d" % (case["kind"], "causal" if case["causal"] else "bidirectional", case["lengths"][0])
        yield name, lambda run, case=case: check_case(run, case, seed)
    for kind, info in known.items():
        if kind not in KINDS:
            yield kind, lambda run: ("there is no formula for it in kinds.py", {})
            continue
        for i in range(count * (3 if kind in PLAIN else 1)):
            case = random_case(rng, kind, info)
            if kind == "identity":
                case.pop("lengths_k", None)
            yield "random %d %s" % (i, case), lambda run, case=case, i=i: check_case(run, case, seed + i)
    for row in bad_inputs(rng):
        yield "bad input: " + row[0], lambda run, row=row: (check_bad(run, row), {})


def main():
    words = sys.argv[1:]
    value = lambda flag, default: words[words.index(flag) + 1] if flag in words else default
    if not words or words[0].startswith("-"):
        sys.exit("usage: oracle.py PROGRAM [--seed N] [--cases N] [--only TEXT] [--verbose]")
    run, only = Runner(words[0]), value("--only", "")
    seed, count = int(value("--seed", "1")), int(value("--cases", os.environ.get("FAVOR_ORACLE_CASES", "3")))
    todo = [(name, job) for name, job in jobs(run, seed, count) if only in name]
    passed, failed, largest, culprit = 0, 0, {}, {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for (name, _), (complaint, ratios) in zip(todo, pool.map(lambda item: attempt(item[1], run), todo)):
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
