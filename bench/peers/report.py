"""The page that bench/peers/run writes: Markdown, every number from the run itself."""
import statistics

from lines import COMPILED_EXACT, HOPELESS, TOKENS

HEAD = """# favor and its peers

What a user would pick instead, measured beside favor in one run. Both sides alternate: in every round favor's program
is timed, then each peer, on the same shapes, after a call that warms up.

*times* is the peer's time over favor's in the same round: above 1 favor is faster. It is the median of all rounds, in
brackets the smallest and the largest; lines that cost little have more rounds. *of P* is the share of the best float32
`sgemm` rate that the side's own process reached in the same round, by the counts of the formulas: 8 L r d a head for
kernelized attention, 4 L² d for exact, half of it when causal, backward twice the forward.
"""

METHOD = """## What is compared

- **Attention**: {heads} heads of {dim}, {features} features, one sequence of L tokens. Exact attention against
  `torch.nn.functional.scaled_dot_product_attention`; `favor+` and `relu` (with its projection, as performer-pytorch
  has it) against performer-pytorch's `FastAttention`, which without CUDA computes causal attention by a path of its
  own. In bf16 favor rounds the factors of its products and keeps float32 arrays; PyTorch's arrays are bf16 themselves.
  A peer that took over {hopeless} times as long was measured once. torch.compile does not change what SDPA does inside:
  exact attention is compiled up to L = {compiled} only.
- **Training step**: {layers} pre-LN layers, d_model {d_model}, {model_heads} heads, feed-forward {ffn}, {features}
  features, learned positions, GELU, no dropout, masked tokens of a 29-letter alphabet; forward, loss, backward, clip,
  AdamW (PyTorch's fused one). The peer is the same model in PyTorch with SDPA or `FastAttention`, parameter for
  parameter; its memory is by how much the process grew.
  In bf16 the peer's forward pass runs under `torch.autocast`, favor rounds the factors of its products and keeps what
  backward reads in bf16; parameters are float32 on both sides.
- **Start to first step**: from the command to the end of the first training step, of {tokens} tokens, and to the end of
  the process. Before the step `favor train` reads a file and writes a checkpoint, after it it evaluates and writes
  another; Python imports, builds the model and makes the step. torch.compile has no cache.
"""


def number(x):
    return "%.2f" % x if x < 9.95 else "%.1f" % x if x < 99.5 else "%.0f" % x


def milliseconds(seconds):
    return number(1e3 * statistics.median(seconds))


def share(shares):
    median = statistics.median(shares)
    return "%.2f" % median if median >= 0.095 else "%.3f" % median


def times(line):
    ratios = line.ratios()
    spread = " [%s, %s]" % (number(min(ratios)), number(max(ratios))) if len(ratios) > 1 else ""
    return "**%s**%s" % (number(line.ratio()), spread)


def size(count):
    return "%.0f MiB" % (count / 2**20) if count < 2**30 else "%.2f GiB" % (count / 2**30)


def table(file, heads, rows):
    print("\n| %s |\n|%s" % (" | ".join(heads), "---|" * len(heads)), file=file)
    for row in rows:
        print("| %s |" % " | ".join(str(cell) for cell in row), file=file)


FIGURES = ["favor, ms", "of P", "peer, ms", "of P", "times"]


def figures(line, *more):
    """The cells of a line behind its name, as many as the heads."""
    if not line.ours:
        return ["", "", "", "", line.missing or "", *("" for _ in more), ""]
    return [milliseconds(line.ours), share(line.share_ours), milliseconds(line.theirs), share(line.share_theirs),
            times(line), *more, len(line.ours)]


# ---- sections ------------------------------------------------------------------------------------------------------


def summary(file, lines):
    """What the tables below come to, worst lines included."""
    tasks = {"attention": "attention", "step": "training step", "start": "start to first step"}
    groups = {}
    for line in lines:
        if line.ours:
            what = tasks[line.what["task"]]
            way = {True: ", causal", False: ", bidirectional"}.get(line.what.get("causal"), "")
            dtype = ", bf16" if line.what.get("dtype") == "bf16" else ""
            groups.setdefault((what + way + dtype, line.what["kind"], line.peer), []).append(line.ratio())
    rows = [[what, "`%s`" % kind, peer, "%d of %d" % (sum(r > 1 for r in ratios), len(ratios)), number(min(ratios)),
             number(statistics.median(ratios)), number(max(ratios))] for (what, kind, peer), ratios in groups.items()]
    table(file, ["", "favor", "against", "favor is faster in", "times, least", "median", "most"], rows)


def attention(file, lines, kind, dtype):
    rows = [[line.peer, line.what["threads"], line.what["length"], "causal" if line.what["causal"] else "bidirectional",
             "forward + backward" if line.what["backward"] else "forward", *figures(line)]
            for line in lines if line.what["kind"] == kind and line.what["dtype"] == dtype]
    if rows:
        rows.sort(key=lambda row: (row[0] != "PyTorch SDPA", row[3], row[4], -row[1], row[2]))
        print("\n### `%s`, %s" % (kind, dtype), file=file)
        table(file, ["against", "threads", "L", "", "pass", *FIGURES, "rounds"], rows)


def steps(file, lines, dtype):
    rows = []
    for line in lines:
        memory = "" if line.compiled else "%s, %s" % (size(line.bytes_ours), size(line.bytes_theirs))
        if line.what["dtype"] == dtype:
            rows.append(["`%s`" % line.what["kind"], line.peer, line.what["threads"],
                         "%d x %d" % (line.what["batch"], line.what["length"]), *figures(line, memory)])
    if rows:
        print("\n### %s" % dtype, file=file)
        heads = ["favor", "against", "threads", "sequences x L", *FIGURES, "memory, favor and peer", "rounds"]
        table(file, heads, rows)


def starts(file, lines):
    rows = []
    for line in lines:
        cells = ["", "", line.missing, "", "", ""]
        if line.ours:
            seconds = (line.ours, line.theirs, line.end_ours, line.end_theirs)
            first, peer, end, peer_end = (number(statistics.median(each)) for each in seconds)
            cells = [first, peer, times(line), end, peer_end, len(line.ours)]
        rows.append(["`%s`" % line.what["kind"], line.what["dtype"], line.peer, *cells])
    heads = ["favor", "", "against", "favor, s", "peer, s", "times", "favor to its end, s", "peer to its end, s", "rounds"]
    table(file, heads, rows)


def machine_section(file, machine, quick):
    favor, peers = machine["favor"], machine["peers"]
    print("\n## The run\n\n```sh\nbench/peers/setup\n%s\n```\n" % machine["command"], file=file)
    print("%s with %d processors; favor %s (%s), kernels %s; PyTorch %s (%s, %s kernels), performer-pytorch %s, "
          "Python %s." % (favor["processor"], machine["processors"], favor["version"], machine["commit"], favor["cpu"],
                          peers["torch"], peers["blas"], peers["kernels"], peers["performer"], machine["python"]),
          file=file)
    for threads, (ours, theirs) in sorted(machine["peaks"].items()):
        print("The best sgemm on %d %s: favor %.0f GFLOP/s, PyTorch %.0f GFLOP/s."
              % (threads, "thread" if threads == 1 else "threads", ours, theirs), file=file)
    print("The run took %.0f minutes." % max(1, machine["seconds"] / 60), file=file)
    if machine["load"] > 0.1:
        print("\n**The machine was not idle** (%.1f of %d processors busy before the run): these figures are no verdict."
              % (machine["load"], machine["processors"]), file=file)
    if quick:
        print("\nA quick run: it shows that the command works, on one shape and without torch.compile.", file=file)


def write_report(file, machine, lines, quick):
    of = {task: [line for line in lines if line.what["task"] == task] for task in ("attention", "step", "start")}
    print(HEAD, end="", file=file)
    machine_section(file, machine, quick)
    print("\n## In short", file=file)
    summary(file, lines)
    model = {**machine["model"], "model_heads": machine["model"]["heads"]}
    rules = {"hopeless": HOPELESS, "compiled": COMPILED_EXACT, "tokens": TOKENS}
    print("\n" + METHOD.format(**{**model, **machine["shape"], **rules}), end="", file=file)
    if of["attention"]:
        print("\n## Attention", file=file)
        for dtype in ("f32", "bf16"):
            for kind in ("exact", "favor+", "relu"):
                attention(file, of["attention"], kind, dtype)
    if of["step"]:
        print("\n## Training step", file=file)
        for dtype in ("f32", "bf16"):
            steps(file, of["step"], dtype)
    if of["start"]:
        print("\n## Start to first step", file=file)
        starts(file, of["start"])
