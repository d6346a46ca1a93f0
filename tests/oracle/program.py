"""safetensors files, and one run of `favor apply`."""
import json, os, struct, subprocess, tempfile
import numpy as np

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

    def kinds(self):
        """What `favor info` says of each attention."""
        done = subprocess.run([self.program, "info", "--json"], capture_output=True, text=True, timeout=60)
        return {kind["name"]: kind for kind in json.loads(done.stdout)["attention"]}
