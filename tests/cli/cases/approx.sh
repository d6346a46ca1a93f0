# The laboratory of approximation: rows, intervals, studies, pages, wrong use.
few='--norm 0.5 --length 96 --dim 8 --draws 4 --pairs 16 --pair-draws 400'
export few
check 'rows as documented; the error falls with the features; theory is near' 'favor approx --maps favor+ $few --features 16,256 --json |
python3 -c "
import json, sys
rows = json.load(sys.stdin)
fields = \"map projection features length dim error_matrix error_output ci_low ci_high variance_measured variance_closed_form\"
assert len(rows) == 4 and all(list(row)[:11] == fields.split() for row in rows)
assert [(row[\"projection\"], row[\"features\"]) for row in rows] == [(p, m) for p in (\"iid\", \"orthogonal\") for m in (16, 256)]
for row in rows:
    assert row[\"map\"] == \"favor+\" and row[\"length\"] == 96 and row[\"dim\"] == 8 and row[\"draws\"] == 4
    assert 0 < row[\"ci_low\"] < row[\"error_output\"] < row[\"ci_high\"] < 1 and 0 < row[\"error_matrix\"] < 1
    half = 3.182 * row[\"error_output_sd\"] / 2 # Student, three degrees of freedom
    assert abs(row[\"ci_high\"] - row[\"error_output\"] - half) < 1e-3 * half
    assert 0.5 < row[\"variance_measured\"] / row[\"variance_closed_form\"] < 1.5
for few, many in (rows[:2], rows[2:]):
    assert many[\"error_output\"] < few[\"error_output\"] / 2 and many[\"error_matrix\"] < few[\"error_matrix\"] / 2
    assert 10 < few[\"variance_closed_form\"] / many[\"variance_closed_form\"] < 20"'
check 'orthogonal has the smaller variance in theory' 'favor approx --maps favor+ $few --features 8 --json | python3 -c "
import json, sys
iid, orthogonal = json.load(sys.stdin)
assert orthogonal[\"variance_closed_form\"] < iid[\"variance_closed_form\"]"'
check 'equal seeds, any threads: equal rows; another seed: others' 'favor approx --maps favor+ $few --features 16 --json --threads 1 >a
favor approx --maps favor+ $few --features 16 --json --threads 2 >b; favor approx $few --features 16 --json --seed 1 >c; cmp a b && ! cmp -s a c'
check 'exact has no error, a kind without random parts no interval' 'favor approx $few --maps exact,relu --json 2>/dev/null |
python3 -c "
import json, sys
exact, relu = json.load(sys.stdin)
assert exact[\"map\"] == \"exact\" and exact[\"error_matrix\"] == 0 and exact[\"error_output\"] < 1e-6
assert relu[\"ci_low\"] == relu[\"ci_high\"] == relu[\"error_output\"] > 0.01 and relu[\"draws\"] == 1
assert relu[\"variance_measured\"] == 0 and relu[\"softmax_target\"] is False"'
t 'favor approx $few --maps relu --json >out'
check 'causal, several heads, a scale' 'favor approx --maps favor+ $few --features 16 --causal --heads 2 --scale 0.2 --json | python3 -c "
import json, sys
assert all(0 < row[\"error_output\"] < 2 for row in json.load(sys.stdin))"'
check 'the kernel: exact for opposite vectors, as in theory elsewhere' 'favor approx --study kernel --maps favor+ --dim 8 \
--features 16 --pair-draws 3000 --projection iid --json | python3 -c "
import json, sys
rows = json.load(sys.stdin)
assert len(rows) == 65
for row in rows:
    if row[\"norm\"] > 0.5: continue
    measured, theory = row[\"mse_measured\"], row[\"mse_closed_form\"]
    assert abs(measured - theory) < 0.25 * theory + 1e-10, row"'
check 'errors grow over layers' 'favor approx --study layers --length 64 --dim 8 --heads 2 --layers 3 --features 64 --draws 6 \
--json | python3 -c "
import json, sys
errors = [row[\"error_output\"] for row in json.load(sys.stdin)]
assert len(errors) == 3 and 0 < errors[0] < errors[2] < 1"'
check 'lengths and widths multiply, with and without ppSBN, which makes small vectors' 'favor approx --study lengths \
--maps favor+,rmf-exp --length 32,64 --dim 4,8 --features 64 --draws 4 --json | python3 -c "
import json, sys
rows = json.load(sys.stdin)
assert [(row[\"length\"], row[\"dim\"], row[\"ppsbn\"], row[\"map\"]) for row in rows] == [
    (l, d, p, m) for l in (32, 64) for d in (4, 8) for p in (False, True) for m in (\"favor+\", \"rmf-exp\")]
for plain, scaled in zip((row for row in rows if not row[\"ppsbn\"]), (row for row in rows if row[\"ppsbn\"])):
    assert scaled[\"error_matrix\"] < plain[\"error_matrix\"]
    assert scaled[\"variance_closed_form\"] < plain[\"variance_closed_form\"]
    assert 0.4 < scaled[\"variance_measured\"] / scaled[\"variance_closed_form\"] < 1.6"'
python3 - <<'PY'
import json, struct
def write(path, tensors):
    header, data = {}, b""
    for name, shape, values in tensors:
        raw = struct.pack("<%df" % len(values), *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    open(path, "wb").write(struct.pack("<Q", len(text)) + text + data)
x = [((i * 7919) % 97 - 48) / 60 for i in range(20 * 2 * 4)]
y = [((i * 104729) % 89 - 44) / 60 for i in range(20 * 4)]
q, k, v = ("q", [20, 2, 4], x), ("k", [20, 1, 4], y), ("v", [20, 1, 4], y[::-1])
write("good.safetensors", [q, k, v])
write("nan.safetensors", [q, ("k", [20, 1, 4], y[:5] + [float("nan")] + y[6:]), v])
write("more.safetensors", [q, k, v, ("projection", [3, 4], x[:12])])
write("missing.safetensors", [q, k])
write("wide.safetensors", [q, ("k", [40, 1, 2], y), v])
write("empty.safetensors", [("q", [0, 2, 4], []), ("k", [0, 1, 4], []), ("v", [0, 1, 4], [])])
PY
check 'tensors of a file, grouped heads' 'favor approx --input good.safetensors --maps favor+ --features 64 --draws 3 --json |
python3 -c "
import json, sys
rows = json.load(sys.stdin)
assert len(rows) == 2 and all(row[\"length\"] == 20 and row[\"dim\"] == 4 and 0 < row[\"error_output\"] < 1 for row in rows)"'
cat >compare.py <<'PY'
# Errors as they are defined, from what `favor apply` gives for the same draw; then the spread of two draws.
import json, math, struct, subprocess
def read(path):
    raw = open(path, "rb").read()
    size = struct.unpack("<Q", raw[:8])[0]
    header, out = json.loads(raw[8 : 8 + size]), {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = (8 + size + at for at in entry["data_offsets"])
            out[name] = struct.unpack("<%df" % ((end - begin) // 4), raw[begin:end])
    return out
def favor(*words):
    return subprocess.run([__import__("os").environ["FAVOR"], *words], check=True, capture_output=True).stdout
def apply(kind, rows):
    favor("apply", "-i", "good.safetensors", "-o", "out.safetensors", "--attention", kind, "--rows", ",".join(map(str, rows)),
          *(["--features", "24", "--projection", "iid", "--projection-seed", "5"] if kind != "exact" else []))
    return read("out.safetensors")
def relative(a, b):
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b)) / sum(y * y for y in b))
def approx(rows, draws):
    return json.loads(favor("approx", "--input", "good.safetensors", "--maps", "favor+", "--features", "24", "--projection", "iid",
                            "--seed", "5", "--draws", str(draws), "--rows", str(rows), "--pairs", "0", "--json"))[0]
for count, rows in (100, range(20)), (5, (2, 6, 10, 14, 18)):
    ours, exact, row = apply("favor+", rows), apply("exact", rows), approx(count, 1)
    some = lambda y: [y[(i * 2 + h) * 4 + c] for i in rows for h in range(2) for c in range(4)]
    assert abs(row["error_matrix"] - relative(ours["weights"], exact["weights"])) < 1e-5
    assert abs(row["error_output"] - relative(some(ours["y"]), some(exact["y"]))) < 1e-5
one, two = approx(100, 1), approx(100, 2)
assert abs(two["error_output_sd"] - math.sqrt(2) * abs(two["error_output"] - one["error_output"])) < 1e-6 and two["error_output_sd"] > 0
PY
check 'errors are as defined' 'python3 compare.py'
check 'in one dimension half of the pairs have |q+k| = 2 norms' 'favor approx --maps favor+ --dim 1 --length 64 --features 16 --norm 0.5 \
--projection iid --pair-draws 2 --draws 2 --json | python3 -c "
import json, math, sys
(row,) = json.load(sys.stdin)
full = math.exp(-0.5) * (math.exp(2) - math.exp(1)) / 16
assert 0.3 * full < row[\"variance_closed_form\"] < 0.7 * full"'
for file in nan more missing wide empty nothing; do
    t "favor approx --input $file.safetensors"
done
fasta 20 40 7 >data.fasta
q "favor train --data data.fasta --task lm --out run $small --steps 2 --attention favor+"
check 'a trained model: layers, heads, advice' 'favor approx --run run --data data.fasta --length 100 --features 16,32 --draws 3 \
--maps favor+ --html run.html --json | python3 -c "
import json, sys
rows = json.load(sys.stdin)
assert [(row[\"head\"], row[\"features\"]) for row in rows] == [(h, m) for m in (16, 32) for h in (None, 0, 1)]
for row in rows:
    assert row[\"layer\"] == 0 and row[\"length\"] == 100 and 0 < row[\"error_output\"] < 2 and row[\"largest_norm\"] > 0
    assert 1 <= row[\"effective_features\"] <= row[\"features\"]
    assert (\"recommendation\" in row) == (row[\"head\"] is None)
assert rows[0][\"recommendation\"].startswith(rows[0][\"recommended_map\"])
assert rows[0][\"largest_norm\"] == max(row[\"largest_norm\"] for row in rows)"'
check 'one feature is one effective feature; advice follows the wish' 'favor approx --run run --data data.fasta --length 100 \
--features 1,64 --draws 3 --maps favor+,favor+hyp --wanted-error 0.9 --json >loose; favor approx --run run --data data.fasta --length 100 \
--features 1,64 --draws 3 --maps favor+,favor+hyp --wanted-error 1e-5 --json >strict; python3 -c "
import json
loose, strict = json.load(open(\"loose\")), json.load(open(\"strict\"))
for row in loose:
    if row[\"features\"] == 1: assert abs(row[\"effective_features\"] - 1) < 1e-6
    else: assert 1 < row[\"effective_features\"] < 64
assert \"features\" in loose[0][\"recommendation\"] and loose[0][\"crossover_length\"] > 0
assert strict[0][\"recommended_map\"] == \"exact\" and strict[0][\"recommended_features\"] is None"'
q "favor train --data data.fasta --task lm --out flat $small --steps 2 --attention favor+ --scale 0.05"
check 'advice follows the law' 'favor approx --run flat --data data.fasta --length 100 --features 32,64,128 --draws 6 --maps favor+ \
--wanted-error 0.005 --json | python3 -c "
import json, math, re, sys
rows = [row for row in json.load(sys.stdin) if row[\"head\"] is None]
c = math.exp(sum(math.log(row[\"error_output\"] ** 2 * row[\"features\"]) for row in rows) / 3)
needed = 16 * math.ceil(c / 0.005 ** 2 / 16)
assert re.match(\"exact: favor. would need about %d features, .* even near\" % needed, rows[0][\"recommendation\"]), (needed, rows[0])"'
t 'favor approx --run run'
t 'favor approx --run run --data data.fasta --input good.safetensors'
t 'favor approx --run run --data data.fasta --causal'
t 'favor approx --run nothing --data data.fasta'
: >none.fasta
q 'favor approx --run run --data none.fasta'
t 'favor approx --maps favor+ $few --features 16 --html features.html >out'
q 'favor approx --study kernel --maps favor+ --features 16 --pair-draws 50 --html kernel.html'
check 'nothing outside the pages is named' '! grep -E "https?://|<script|<link|src=" *.html'
check 'charts with bands, theory, figures' 'for word in polyline "class=\"band" dashed "All figures" "favor+ orthogonal"; do
grep -qF "$word" features.html || { echo "$word"; exit 1; }; done'
check 'tags are balanced' 'python3 -c "
from html.parser import HTMLParser
import glob
class Check(HTMLParser):
    def handle_starttag(self, tag, attrs):
        if tag not in (\"meta\", \"img\"): self.stack.append(tag)
    def handle_endtag(self, tag): assert self.stack.pop() == tag, tag
for path in sorted(glob.glob(\"*.html\")):
    page = Check(); page.stack = []; page.feed(open(path).read()); assert not page.stack"'
t 'favor approx --maps favr+'
t 'favor approx --features 0'
t 'favor approx --features 16,many'
t 'favor approx --projection ortogonal'
t 'favor approx --projection circular'
t 'favor approx --input good.safetensors --length 64'
t 'favor approx --study lenghts'
t 'favor approx --study layers --length 8,16'
t 'favor approx --dim 0'
t 'favor approx --draws 0'
t 'favor approx --maps favor+ --projection none'
