# Benchmarks: their fields and what is left out; no time is judged.
check 'attention: lists multiply, fields as documented' 'favor bench attention --attention favor+,exact,identity --length 16,64 \
--heads 2 --dim 8 --features 16 --threads 1,2 --dtype f32,bf16 --causal --repeat 1 --json 2>/dev/null | python3 -c "
import json, sys
rows = json.load(sys.stdin)
fields = \"kind causal pass length heads dim features threads dtype ms_median ms_min ms_max gflops share_of_peak peak_bytes \\
repeats machine_share sgemm_gflops options machine kernels gemm favor date\"
assert len(rows) == 3 * 2 * 2 * 2 * 2 and all(list(row) == fields.split() for row in rows)
for row in rows:
    assert row[\"causal\"] is True and row[\"ms_min\"] <= row[\"ms_median\"] <= row[\"ms_max\"] and row[\"peak_bytes\"] > 0
    assert 0 < row[\"machine_share\"] <= 1
    n, back = row[\"length\"], 3 if row[\"pass\"] == \"forward+backward\" else 1
    flop = {\"favor+\": 2 * 8 * n * 16 * 8, \"exact\": 2 * 2 * n * n * 8, \"identity\": 0}[row[\"kind\"]] * back
    assert abs(row[\"gflops\"] * row[\"ms_median\"] * 1e6 - flop) <= 1e-6 * flop"'
check 'attention: too many threads are refused by their name' 'favor bench attention --threads 5000 2>err
test $? = 2 && grep -q "threads 5000: at most 4096" err'
check 'train: fields as documented' 'favor bench train --attention relu --length 16 --batch 2 --layers 1 --d-model 16 --heads 2 \
--ffn 16 --dtype bf16 --repeat 1 --json 2>/dev/null | python3 -c "
import json, sys
(row,) = json.load(sys.stdin)
fields = \"kind length batch layers d_model heads ffn features threads dtype ms_median tokens_per_s gflops share_of_peak peak_bytes \\
ms_min ms_max repeats task sgemm_gflops options machine kernels gemm favor date\"
assert list(row) == fields.split() and row[\"dtype\"] == \"bf16\"
assert abs(row[\"tokens_per_s\"] * row[\"ms_median\"] / 1e3 - 32) < 1e-3"'
check 'decode: fields as documented, bytes that grow with the keys' 'favor bench decode --attention exact,relu --length 33,65 --batch 1,2 --layers 1 \
--d-model 16 --heads 2 --ffn 16 --threads 1 --repeat 2 --json 2>/dev/null | python3 -c "
import json, sys
rows = json.load(sys.stdin)
fields = \"kind position batch layers d_model heads ffn features threads dtype ms_per_token bytes_per_token bandwidth_gbs share_of_bandwidth \\
tokens_per_s prefill_tokens_per_s ms_min ms_max parameters repeats peak_bytes read_gbs options machine kernels gemm favor date\"
assert len(rows) == 2 * 2 * 2 and all(list(row) == fields.split() for row in rows)
read = {(r[\"kind\"], r[\"position\"], r[\"batch\"]): r[\"bytes_per_token\"] for r in rows}
for b in (1, 2):
    assert read[\"exact\", 65, b] - read[\"exact\", 33, b] == 32 * 2 * 16 * 4 # keys and values
    assert read[\"relu\", 65, b] - read[\"relu\", 33, b] == 32 * 0
assert read[\"relu\", 33, 2] < read[\"relu\", 33, 1] # streams of a batch share the weights
for r in rows:
    assert abs(r[\"bandwidth_gbs\"] * r[\"ms_per_token\"] * 1e6 / r[\"bytes_per_token\"] - 1) < 1e-6
    assert abs(r[\"bandwidth_gbs\"] / r[\"read_gbs\"] / r[\"share_of_bandwidth\"] - 1) < 1e-6"'
figure='favor bench lengths --models small --attention exact,relu --length 16,32,64 --repeat 1 --threads 1 --json'
export figure
check 'lengths: fields as documented, curves end where they are told' '$figure --seconds 0 --memory 64M 2>err | python3 -c "
import json, sys
rows = json.load(sys.stdin)
fields = \"kind length batch layers d_model heads ffn features threads dtype model pass ms_median ms_min ms_max tokens_per_s gflops \\
share_of_peak peak_bytes repeats memory_bytes max_length sgemm_gflops options machine kernels gemm favor date\"
assert all(list(row) == fields.split() for row in rows)
assert [(r[\"kind\"], r[\"pass\"], r[\"length\"]) for r in rows] == [(k, p, 16) for k in (\"exact\", \"relu\") for p in (\"forward\", \"forward+backward\")]
assert all((r[\"layers\"], r[\"d_model\"], r[\"heads\"], r[\"ffn\"], r[\"model\"], r[\"memory_bytes\"]) == (1, 64, 1, 64, \"small\", 64 << 20) for r in rows)
assert rows[1][\"peak_bytes\"] > rows[0][\"peak_bytes\"]" && grep -c "from 32 tokens on: left out: a pass" err | grep -qx 4'
check 'lengths: the longest sequence grows with the memory, and nothing longer is trained' 'for memory in 2M 16M 32MiB 67108864; do
${figure/16,32,64/128,256,512} --seconds 1000 --memory $memory 2>/dev/null; done | python3 -c "
import json, sys
decoder, text, runs = json.JSONDecoder(), sys.stdin.read(), []
while text.strip():
    rows, end = decoder.raw_decode(text.strip())
    runs.append(rows)
    text = text.strip()[end:]
longest = [{r[\"kind\"]: r[\"max_length\"] for r in rows} for rows in runs]
for kind in (\"exact\", \"relu\"):
    a, b, c, d = (l[kind] for l in longest)
    assert 128 < a < 512 and a < b < c < d and 1.9 < (d - c) / (c - b) < 2.1, longest # affine in the length
for rows, l in zip(runs, longest):
    assert all(r[\"length\"] <= l[r[\"kind\"]] for r in rows if r[\"pass\"] == \"forward+backward\")
    assert sum(r[\"pass\"] == \"forward\" for r in rows) == 6"'
check 'settings that are no field are told' 'favor bench train --attention relu --length 16 --layers 1 --d-model 16 --heads 2 --ffn 16 \
--repeat 1 --task lm --gate --chunk 8 --set weight_decay=0.25 --json 2>/dev/null | python3 -c "
import json, sys
(row,) = json.load(sys.stdin)
assert row[\"options\"] == \"set=weight_decay=0.25 chunk=8 gate=true\" and row[\"task\"] == \"lm\", row"'
q 'favor bench attention --attention exact --length 4294967296 --heads 64'
check 'auto: a kind that is there, chosen for the length' 'favor bench attention --attention auto --length 16,65536 --heads 1 --dim 4 \
--features 8 --pass forward --repeat 1 --json 2>said | python3 -c "
import json, sys
short, long = json.load(sys.stdin)
assert short[\"kind\"] in (\"exact\", \"favor+\") and long[\"kind\"] == \"favor+\"" && test $(grep -c "attention auto: " said) = 2'
q 'favor bench attention --length 0'
q 'favor bench attention --length 16,x'
q 'favor bench attention --attention bogus'
t 'favor bench attention --dtype f16'
q 'favor bench train --threads 0'
q 'favor bench decode --attention linformer'
q 'favor bench decode --set max_position_embeddings=8 --length 64 --layers 1 --d-model 16 --heads 2 --ffn 16'
q 'favor bench decode --length 1099511627776'
t 'favor bench lengths --memory 4X'
t 'favor bench figure3 --length 64,32'
q 'favor bench lengths --models large'
q 'favor bench lengths --memory 0'
# More and more repetitions, until the bench lasts long enough to tell how far it is.
check 'progress counts lines' 'for repeat in 30000 100000 300000 1000000; do
favor bench attention --attention relu --length 64 --heads 1 --dim 8 --features 16 --threads 1 --repeat $repeat 2>err >out
grep -q "^bench" err && break; done; grep -qE "^bench [12]/2 lines  left [0-9]" err'
