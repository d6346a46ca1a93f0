"""The two sides of a comparison: favor's program, and a worker process with PyTorch. Both tell seconds."""
import json, os, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
VENV = os.path.join(ROOT, "build-peers", "venv", "bin", "python")

MODEL = {"layers": 4, "d_model": 256, "heads": 4, "ffn": 1024}  # of training steps


class Failed(Exception):
    """One side has no figure for a line; the reason is the text."""


# ---- favor ----------------------------------------------------------------------------------------------------------


class Favor:
    def __init__(self, program):
        self.program = program

    def read(self, *words):
        done = subprocess.run([self.program, *map(str, words), "--json"], capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(done.stderr.strip().splitlines()[-1])
        return json.loads(done.stdout)

    def info(self):
        return self.read("info")

    def has_bf16(self):
        words = "bench attention --attention favor+ --length 64 --pass forward --repeat 1 --dtype bf16".split()
        try:
            return self.read(*words)[0]["dtype"] == "bf16"
        except Failed:
            return False

    @staticmethod
    def map_options(kind, features):
        """The projected map that performer-pytorch has: `relu` alone would have none."""
        return [] if kind == "exact" else ["--features", features, "--projection", "orthogonal"]

    def attention(self, kinds, causal, threads, length, shape, dtype, repeat):
        """Rows of `favor bench attention` by (kind, with backward)."""
        words = ["--attention", ",".join(kinds), "--length", length, "--threads", threads, "--repeat", repeat]
        words += ["--heads", shape["heads"], "--dim", shape["dim"], *self.map_options(kinds[0], shape["features"])]
        words += ["--pass", "forward,forward+backward", "--dtype", dtype, *(["--causal"] if causal else [])]
        rows = self.read("bench", "attention", *words)
        return {(row["kind"], row["pass"] == "forward+backward"): row for row in rows}

    def model_options(self, kind, length, batch, features):
        words = ["--length", length, "--batch", batch, "--dropout", 0, "--attention", kind]
        words += ["--layers", MODEL["layers"], "--d-model", MODEL["d_model"], "--heads", MODEL["heads"]]
        return words + ["--ffn", MODEL["ffn"], *self.map_options(kind, features)]

    def step(self, kind, threads, length, batch, features, dtype):
        words = [*self.model_options(kind, length, batch, features), "--threads", threads, "--repeat", 1]
        words += ["--dtype", dtype]
        return self.read("bench", "train", *words)[0]

    def first_step(self, kind, threads, length, batch, features, dtype, data):
        """Seconds of `favor train` with one step, from start to the end of the step and to its own end; parameters of
        its model. What it does before its own clock begins, and after that stops, counts as before the step."""
        with tempfile.TemporaryDirectory() as out:
            words = ["train", "--data", data, "--out", os.path.join(out, "run"), "--steps", 1, "--eval-batches", 1]
            words += [*self.model_options(kind, length, batch, features), "--threads", threads, "--dtype", dtype]
            begin = time.monotonic()
            done = self.read(*words)
            end = time.monotonic() - begin
            return end - done["seconds"] + done["first_step_seconds"], end, done["parameters"]


# ---- PyTorch --------------------------------------------------------------------------------------------------------


def environment(threads, **more):
    cache = os.path.join(ROOT, "build-peers", "inductor")  # of torch.compile, so that a second run need not wait
    quiet = {"PYTHONWARNINGS": "ignore", "PYTHONDONTWRITEBYTECODE": "1", "TORCHINDUCTOR_CACHE_DIR": cache}
    return {**os.environ, "OMP_NUM_THREADS": str(threads), **quiet, **more}


class Worker:
    """worker.py with a number of threads; starts when first asked, and again when it died."""

    def __init__(self, threads, log):
        self.threads, self.log, self.process = threads, log, None

    def ask(self, do, **what):
        if self.process is None:
            command = [VENV, os.path.join(HERE, "worker.py")]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.log}
            self.process = subprocess.Popen(command, text=True, bufsize=1, env=environment(self.threads), **pipes)
        try:
            print(json.dumps({"do": do, **what}), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code, self.process = self.process.wait(), None
            raise Failed("the process ended with %d" % code)
        reply = json.loads(line)
        if "error" in reply:
            raise Failed(reply["error"])
        return reply["result"]

    def close(self):
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()
            self.process = None


def first_step(threads, log, request):
    """Seconds of a Python process that does one training step, from start to the end of the step and to its own end.
    torch.compile has no cache."""
    command = [VENV, os.path.join(HERE, "worker.py"), "first-step", json.dumps(request)]
    begin = time.monotonic()  # the same clock in every process
    alone = environment(threads, TORCHINDUCTOR_FORCE_DISABLE_CACHES="1")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, env=alone, text=True)
    end = time.monotonic()
    if done.returncode != 0:
        raise Failed("the process ended with %d" % done.returncode)
    return float(done.stdout) - begin, end - begin
