"""What is compared: every line of the comparison, and what the rounds found for it."""
import contextlib, statistics, time

from sides import MODEL, Failed

SHAPE = {"heads": 8, "dim": 64, "features": 256}  # of one attention call
TOKENS = 8192  # of one training step
REPEAT_FLOP = 30e9  # calls in a measurement, so many that they do this
MOST_REPEATS = 20
HOPELESS = 20  # a peer this many times slower is measured once
COMPILED_EXACT = 1024  # longest compiled exact attention: torch.compile works around SDPA, not in it

# kind of favor; name of the peer; compiled by torch.compile
ATTENTION_PEERS = {
    "exact": (("PyTorch SDPA", False), ("SDPA, torch.compile", True)),
    "favor+": (("performer-pytorch", False),),
    "relu": (("performer-pytorch", False),),
}
TOGETHER = (("exact",), ("favor+", "relu"))  # kinds that take the same options
STEP_PEERS = {
    "exact": (("PyTorch", False), ("torch.compile", True)),
    "favor+": (("performer-pytorch", False), ("torch.compile", True)),
    "relu": (("performer-pytorch", False),),
}


def forward_flop(kind, length):
    per_pair = 4 * length if kind == "exact" else 8 * SHAPE["features"]
    return SHAPE["heads"] * SHAPE["dim"] * length * per_pair


def repeats(kind, length):
    return max(1, min(MOST_REPEATS, round(REPEAT_FLOP / forward_flop(kind, length))))


class Line:
    """One comparison; times in seconds, rates in GFLOP/s, one of each a round."""

    def __init__(self, peer, compiled, **what):
        self.peer, self.compiled, self.what = peer, compiled, what
        self.ours, self.theirs, self.share_ours, self.share_theirs = [], [], [], []
        self.end_ours, self.end_theirs = [], []  # of starts: seconds to the end of the process
        self.bytes_ours = self.bytes_theirs = self.parameters = 0
        self.took = 0.0  # by the peer's last measurement
        self.missing = None  # why there is no figure

    def request(self):
        """What the worker is asked for, but for how often."""
        if self.what["task"] == "attention":
            what = {key: self.what[key] for key in ("kind", "causal", "backward", "length", "dtype")}
            return {"do": "attention", "compiled": self.compiled, **what, **SHAPE}
        what = {key: self.what[key] for key in ("kind", "length", "batch", "dtype")}
        return {"do": "step", "compiled": self.compiled, **what, "features": SHAPE["features"], "model": MODEL}

    def add(self, ours, theirs, share_ours=None, share_theirs=None):
        self.ours.append(ours)
        self.theirs.append(theirs)
        self.share_ours.append(share_ours)
        self.share_theirs.append(share_theirs)

    def add_row(self, row, theirs, peak):
        """A row of `favor bench` against the peer's seconds at the peer's sgemm rate."""
        ours = 1e-3 * row["ms_median"]
        self.add(ours, theirs, row["share_of_peak"], row["gflops"] * ours / theirs / peak)

    @contextlib.contextmanager
    def measured(self):
        """Notes how long it takes; the peer's failure is this line's figure."""
        begin = time.monotonic()
        try:
            yield
        except Failed as failure:
            self.missing = "failed: %s" % failure
        self.took = time.monotonic() - begin

    def ratios(self):
        return [theirs / ours for ours, theirs in zip(self.ours, self.theirs)]

    def ratio(self):
        return statistics.median(self.ratios())

    def settled(self):
        """No further round is wanted."""
        return self.missing is not None or (self.ours != [] and self.ratio() > HOPELESS)

    def seconds_of_peer(self, length):
        """How long the peer would take at another length, from what it took here."""
        power = 2 if self.what["kind"] == "exact" else 1
        return statistics.median(self.theirs) * (length / self.what["length"]) ** power

    def as_json(self):
        return {**self.what, "peer": self.peer, "compiled": self.compiled, "missing": self.missing, "ours_s": self.ours,
                "theirs_s": self.theirs, "end_ours_s": self.end_ours, "end_theirs_s": self.end_theirs, "ratios": self.ratios(), "share_ours": self.share_ours,
                "share_theirs": self.share_theirs, "bytes_ours": self.bytes_ours, "bytes_theirs": self.bytes_theirs}


def training_size(what):
    return {**{key: what[key] for key in ("kind", "threads", "length", "batch", "dtype")}, "features": SHAPE["features"]}


# ---- lists of lines; favor's figures of a list come from one call of its program -----------------------------------


def against(peers, compiled, **what):
    """A line for each peer."""
    long = what["kind"] == "exact" and what["length"] > COMPILED_EXACT
    return [Line(*peer, **what) for peer in peers if not peer[1] or (compiled and not long)]


def attention_groups(cases, dtype, compiled):
    groups = []
    for threads, length in cases:
        for causal in (False, True):
            for kinds in TOGETHER:
                what = dict(task="attention", causal=causal, threads=threads, length=length, dtype=dtype)
                wants = [dict(what, kind=kind, backward=backward) for kind in kinds for backward in (False, True)]
                groups.append([line for w in wants for line in against(ATTENTION_PEERS[w["kind"]], compiled, **w)])
    return groups


def training_groups(task, cases, dtype, compiled, kinds=tuple(STEP_PEERS)):
    return [against(STEP_PEERS[kind], compiled, task=task, kind=kind, threads=threads, length=length, dtype=dtype,
                    batch=max(1, TOKENS // length)) for threads, length in cases for kind in kinds]


# ---- rounds ----------------------------------------------------------------------------------------------------------


def further_rounds(costs, most, seconds):
    """How many more rounds each group gets, so that all end within `seconds`: the same time for each, hence many rounds
    for cheap groups. costs: seconds of a round, 0 where none is wanted; most: rounds."""
    def rounds(share):
        return [min(n, int(share // cost)) if cost > 0 else 0 for cost, n in zip(costs, most)]

    low, high = 0.0, max(seconds, 0.0)
    for _ in range(50):
        share = (low + high) / 2
        fits = sum(n * cost for n, cost in zip(rounds(share), costs)) <= seconds
        low, high = (share, high) if fits else (low, share)
    return rounds(low)
