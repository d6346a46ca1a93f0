# Two benchmarks beside each other, and where rows go. The rows are made up, so that every figure is known.
rows() { # file, then lines: kind length ms_median ms_min ms_max share
    awk '{ printf "%s{\"kind\": \"%s\", \"causal\": false, \"pass\": \"forward\", \"length\": %s, \"threads\": 1, ", (NR > 1 ? "," : "["), $1, $2
        printf "\"ms_median\": %s, \"ms_min\": %s, \"ms_max\": %s, \"share_of_peak\": %s, \"peak_bytes\": 4096, ", $3, $4, $5, $6
        print "\"favor\": \"0.1.0\", \"machine\": \"M\", \"kernels\": \"k\", \"gemm\": \"g\", \"date\": \"2026\"}" }
        END { print "]" }' >"$1"
}
rows a.json <<END
exact 64 10 9 12 0.5
exact 128 40 39 41 0.5
relu 64 5 4 6 0.4
relu 128 10 9 11 0.4
identity 64 1 0.9 1.1 0
favor+ 64 8 8 8 0.6
END
# Slower on a slower machine, and as good; slower; faster; within the spread; slower without a share; not there any more.
rows b.json <<END
exact 64 20 18 24 0.5
exact 128 50 49 52 0.4
relu 64 2 1.9 2.1 0.8
relu 128 11 10 12 0.38
identity 64 2 1.8 2.2 0
sikf 64 8 8 8 0.6
END
t 'favor bench compare a.json b.json'
t 'favor bench compare a.json b.json --fail-above 200'
t 'favor bench compare a.json b.json --fail-above 20 >table'
q 'favor bench --compare a.json b.json'
q 'favor bench attention --compare a.json b.json --fail-above 20'
check 'JSON: ratios and intervals' 'favor bench compare a.json b.json --json | python3 -c "
import json, sys
c = json.load(sys.stdin)
assert (c[\"slower\"], c[\"faster\"], len(c[\"rows\"]), c[\"first\"][\"file\"], c[\"second\"][\"machine\"]) == (2, 1, 5, \"a.json\", \"M\")
near = lambda x, y: abs(x - y) < 1e-6
row = c[\"rows\"][1]
assert (row[\"kind\"], row[\"length\"], row[\"verdict\"]) == (\"exact\", 128, \"slower\")
assert near(row[\"ms_ratio\"], 50 / 40) and near(row[\"ms_ratio_low\"], 49 / 41) and near(row[\"ms_ratio_high\"], 52 / 39)
assert near(row[\"share_ratio\"], 0.8) and near(row[\"share_ratio_low\"], 0.8 * 1.25 / (52 / 39))
assert c[\"rows\"][4][\"share_ratio\"] is None and c[\"rows\"][4][\"verdict\"] == \"slower\"
assert c[\"only_first\"][0][\"kind\"] == \"favor+\" and c[\"only_second\"][0][\"kind\"] == \"sikf\""'
rows c.json <<END
exact 4096 10 9 12 0.5
END
t 'favor bench compare a.json c.json'
t 'favor bench compare a.json missing.json'
echo 'not JSON' >text.json
t 'favor bench compare text.json a.json'
echo '{"kind": "exact"}' >object.json
t 'favor bench compare a.json object.json'
echo '[]' >empty.json
q 'favor bench compare empty.json a.json'
echo '[{"kind": "exact", "length": 64, "ms_median": 1}]' >short.json
t 'favor bench compare a.json short.json'
echo '[{"kind": "exact", "ms_median": 1, "ms_min": 2, "ms_max": 3}]' >order.json
q 'favor bench compare a.json order.json'
t 'favor bench compare a.json'
q 'favor bench compare a.json b.json c.json'
q 'favor bench compare a.json b.json --fail-above -1'
t 'favor bench train --fail-above 3'
q 'favor bench train --compare a.json b.json c.json'
q 'favor bench train --compare text.json'
# Rows of a run: against a file, into files.
tiny='--attention exact,relu --length 16,32 --heads 1 --dim 8 --threads 1 --repeat 1'
export tiny
q "favor bench attention $tiny --out run.json --html page.html"
check 'the file is what --json prints' 'favor bench attention $tiny --json 2>/dev/null | python3 -c "
import json, sys
assert [list(r) for r in json.load(sys.stdin)] == [list(r) for r in json.load(open(\"run.json\"))]"'
q "favor bench attention $tiny --compare run.json"
q "favor bench attention $tiny --compare a.json"
q "favor bench attention $tiny --out missing/run.json"
q "favor bench train --attention relu --length 16,32 --layers 1 --d-model 16 --heads 2 --ffn 16 --repeat 1 --html train.html --out train.json"
q "favor bench decode --attention exact,relu --length 16,32 --layers 1 --d-model 16 --heads 2 --ffn 16 --repeat 1 --html decode.html --out decode.json"
q "favor bench lengths --models small --attention identity,relu --length 16,32 --repeat 1 --html lengths.html --out lengths.json"
check 'pages need nothing and say what they show' 'for page in page train decode lengths; do
! grep -E "https?://|<script|<link|src=" $page.html || exit 1
for word in polyline "slope 1" "slope 2" "<details open>" "favor 0.1.0" "kernels" "favor bench" "20[0-9][0-9]-[0-9][0-9]-"; do grep -q "$word" $page.html || exit 1; done; done
grep -q "Share of P" page.html && grep -q "P = " train.html && grep -q "memory is read at" decode.html && grep -qF -- "--heads 1 --dim 8" page.html'
check 'all of them in one report' 'mkdir -p run && echo "{\"step\": 1, \"split\": \"train\", \"loss\": 1}" >run/metrics.jsonl &&
favor report run --bench run.json train.json decode.json lengths.json -o report.html --json | grep -q "\"bench_rows\": 22" &&
for word in "One training step" "One attention call" "One token of a stream" "Models over lengths" "Longest sequence"; do grep -q "$word" report.html || exit 1; done'
check 'tags are balanced' 'python3 -c "
from html.parser import HTMLParser
class Check(HTMLParser):
    def __init__(self): super().__init__(); self.stack = []
    def handle_starttag(self, tag, attrs):
        if tag not in (\"meta\", \"img\"): self.stack.append(tag)
    def handle_startendtag(self, tag, attrs): pass
    def handle_endtag(self, tag): assert self.stack.pop() == tag, tag
for name in (\"page\", \"train\", \"decode\", \"lengths\", \"report\"):
    page = Check(); page.feed(open(name + \".html\").read()); assert not page.stack"'
