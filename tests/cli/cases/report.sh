# The report: one page, nothing outside it.
fasta 30 40 7 >data.fasta
mkdir runs
small='--layers 1 --d-model 16 --heads 2 --ffn 16 --length 32 --batch 2 --steps 4 --eval-every 2 --attention relu'
q "favor train --data data.fasta --out runs/mlm $small --log-every 1"
q 'favor eval runs/mlm --data data.fasta --split all --json >runs/mlm/eval.json'
q 'favor attend runs/mlm --sequence MKTAYIAKQR --layer 0 --head 0 --png runs/map.png'
echo '{"generated": ["MKTAYI", "a <b> & \"c\""]}' >runs/summary.json
echo '[{"kind": "exact", "length": 16, "causal": false, "pass": "forward", "ms_median": 1.5, "peak_bytes": 4096},
{"kind": "exact", "length": 64, "causal": false, "pass": "forward", "ms_median": 20, "peak_bytes": 16384}]' >bench.json
t 'favor report runs --bench bench.json -o report.html --json'
check 'nothing outside the page is named' '! grep -E "https?://|<script|<link|src=\"[^d]" report.html'
check 'what it shows' 'for word in "Run mlm" polyline "data:image/png;base64," "empirical" "Peak memory" "&lt;b&gt; &amp; &quot;c&quot;"; do
grep -qF "$word" report.html || exit 1; done'
check 'its tags are balanced' 'python3 -c "
from html.parser import HTMLParser
class Check(HTMLParser):
    stack = []
    def handle_starttag(self, tag, attrs):
        if tag not in (\"meta\", \"img\"): self.stack.append(tag)
    def handle_endtag(self, tag): assert self.stack.pop() == tag, tag
page = Check(); page.feed(open(\"report.html\").read()); assert not page.stack"'
printf '{"step": 1, "split": "tra' >>runs/mlm/metrics.jsonl
q 'favor report runs/mlm -o torn.html'
printf 'x\n' >>runs/mlm/metrics.jsonl
t 'favor report runs/mlm -o bad.html'
t 'favor report missing -o bad.html'
mkdir empty
t 'favor report empty -o bad.html'
sed -i '$d' runs/mlm/metrics.jsonl
echo '{"kind": 1}' >notlist.json
t 'favor report runs/mlm --bench notlist.json -o bad.html'
t 'favor report runs/mlm --bench missing.json -o bad.html'
t 'favor report runs/mlm --picture data.fasta -o bad.html'
check 'no page was left' 'test ! -e bad.html'
