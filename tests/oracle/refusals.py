"""Bad files and impossible combinations: exit code and what the message says."""
import os, struct, subprocess
import numpy as np
from cases import basic
from program import read, write

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


FILES = [damaged_files, unwritable]
