"""The other side of bench/peers/run: PyTorch and performer-pytorch, timed in a process of their own.

    worker.py                  answers requests: a line of JSON on standard input, a line of JSON on standard output
    worker.py first-step WHAT  one training step, tells when it was done, then ends; WHAT is the request "step"

Threads are OMP_NUM_THREADS. What is asked for twice is made once, so that torch.compile compiles once a shape.
"""
import ctypes, functools, json, os, statistics, sys, time

import torch
from models import MaskedLM, attention_of

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
PEAK_SHAPES = ((1024, 1024, 1024), (2048, 2048, 2048), (512, 512, 2048), (4096, 256, 64))
PEAK_SECONDS = 0.3  # of all shapes together
LONG_SECONDS = 3.0  # a first call this long needs no other one to warm up
BATCH_SECONDS = 0.5  # a measurement repeats no further than this


def clock(call):
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def timed(call, repeat, compiled):
    """The median of up to `repeat` calls behind one that warms up, or compiles."""
    first = clock(call)
    if first > LONG_SECONDS and not compiled:
        return first
    seconds = [clock(call)]
    while len(seconds) < repeat and sum(seconds) < BATCH_SECONDS:
        seconds.append(clock(call))
    return statistics.median(seconds)


# ---- requests ------------------------------------------------------------------------------------------------------


def describe():
    import importlib.metadata as packages

    return {
        "torch": torch.__version__,
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "blas": "MKL" if torch.backends.mkl.is_available() else "no MKL",
        "performer": packages.version("performer-pytorch"),
        "threads": torch.get_num_threads(),
    }


def peak():
    """The best rate of torch.mm in GFLOP/s."""
    best = 0.0
    for m, n, k in PEAK_SHAPES:
        a, b, c = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
        end = time.perf_counter() + PEAK_SECONDS / len(PEAK_SHAPES)
        while time.perf_counter() < end:
            best = max(best, 2e-9 * m * n * k / clock(lambda: torch.mm(a, b, out=c)))
    return best


@functools.lru_cache(maxsize=None)
def operator(kind, compiled, causal, dim, features):
    torch.manual_seed(0)
    attend = attention_of(kind, dim, features, causal)
    return torch.compile(attend, dynamic=False) if compiled else attend


def attention(kind, compiled, causal, backward, length, heads, dim, features, dtype, repeat):
    attend = operator(kind, compiled, causal, dim, features)
    q, k, v, dy = (torch.randn(1, heads, length, dim).to(DTYPES[dtype]) for _ in range(4))

    def forward():
        with torch.no_grad():
            attend(q, k, v)

    def forward_backward():
        q.grad = k.grad = v.grad = None
        attend(q, k, v).backward(dy)

    for x in (q, k, v):
        x.requires_grad_(backward)
    return timed(forward_backward if backward else forward, repeat, compiled)


class Trainer:
    """Steps of favor's trainer: mean loss of the masked tokens, clip at norm 0.5, AdamW; bf16 as PyTorch's users have
    it: parameters in float32, the forward pass under autocast."""

    def __init__(self, kind, compiled, length, batch, features, model, dtype, **_):
        torch.manual_seed(0)
        self.cast = functools.partial(torch.autocast, "cpu", torch.bfloat16, enabled=dtype == "bf16")
        self.model = MaskedLM(kind, length, features, **model)
        self.loss = torch.compile(self.model, dynamic=False) if compiled else self.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, weight_decay=0.1, fused=True)
        self.ids = torch.randint(0, self.model.letters, (batch, length))
        rows = torch.arange(batch * length)
        self.rows = rows[((rows + 1) * 0.15).floor() > (rows * 0.15).floor()]  # as favor's: 15 % of all
        self.targets = self.ids.view(-1)[self.rows].clone()
        self.ids.view(-1)[self.rows] = self.model.mask

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        with self.cast():
            loss = self.loss(self.ids, self.rows, self.targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 0.5)
        self.optimizer.step()

    def parameters(self):
        return sum(p.numel() for p in self.model.parameters())


@functools.lru_cache(maxsize=None)
def trainer_of(text):
    return Trainer(**json.loads(text))


def resident(name):
    """VmRSS or VmHWM of this process in bytes."""
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(name))


def watched(call):
    """(result of call, bytes by which this process grew during it)"""
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the high-water mark starts anew
    before = resident("VmRSS")
    return call(), resident("VmHWM") - before


def step(repeat=1, **what):
    def make_and_time():
        trainer = trainer_of(json.dumps(what, sort_keys=True))
        return timed(trainer.step, repeat, what["compiled"]), trainer.parameters()

    (seconds, parameters), grown = watched(make_and_time)
    return {"seconds": seconds, "bytes": grown, "parameters": parameters}


REQUESTS = {"describe": describe, "peak": peak, "attention": attention, "step": step}


def answer(request):
    try:
        return {"result": REQUESTS[request.pop("do")](**request)}
    except (RuntimeError, MemoryError, NotImplementedError) as error:  # a shape that PyTorch cannot do, or no memory
        return {"error": str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}


def answers():
    """A copy of standard output: packages print there too, and that goes to standard error."""
    file = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return file


def serve():
    file = answers()
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=file)


def first_step(what):
    file = answers()
    Trainer(**what).step()
    print(time.monotonic(), file=file)


if __name__ == "__main__":
    if sys.argv[1:2] == ["first-step"]:
        first_step(json.loads(sys.argv[2]))
    else:
        serve()
