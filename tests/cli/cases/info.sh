# What runs here.
q 'favor info'
t 'favor info | sed -n "1,/^  threads/p"'
check 'JSON is valid' 'favor info --json | python3 -m json.tool'
check 'JSON has its fields' 'favor info --json | python3 -c "
import json, sys
info = json.load(sys.stdin)
assert info[\"cpu\"] in info[\"cpu_available\"]
assert {\"gemm\", \"adamw\"} <= set(info[\"kernels\"])
assert {\"exact\", \"favor+\"} <= {row[\"name\"] for row in info[\"attention\"]}
assert {\"fasta\", \"bytes\"} <= {row[\"name\"] for row in info[\"readers\"]}
assert info[\"threads\"] >= 1 and info[\"version\"]"'
check 'a kernel set can be forced' 'test "$(favor info --json --cpu reference | python3 -c "
import json, sys
print(json.load(sys.stdin)[\"cpu\"])")" = reference'
check 'the environment forces one too' 'FAVOR_CPU=reference favor info | grep -q "kernel set   reference"'
check 'threads are as asked' 'favor info --threads 3 | grep -qx "  threads      3"'
check 'the peak is measured on demand' 'favor info --peak | grep -qE "sgemm peak +[0-9.]+ GFLOP/s"'
