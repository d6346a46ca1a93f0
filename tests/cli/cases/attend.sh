# Rows and heat maps of a head's attention.
fasta 30 40 7 >data.fasta
small='--layers 1 --d-model 16 --heads 2 --ffn 16 --length 32 --batch 2 --steps 2 --attention relu'
q "favor train --data data.fasta --out mlm $small"
q "favor train --data data.fasta --task lm --out lm $small"
check 'rows sum to one, whatever head' 'for head in 0 1; do
favor attend mlm --sequence MKTAYIAKQR --layer 0 --head $head --all --json | python3 -c "
import json, sys
rows = json.load(sys.stdin)[\"rows\"]
assert [row[\"row\"] for row in rows] == list(range(10))
assert \"\".join(row[\"letter\"] for row in rows) == \"MKTAYIAKQR\"
assert all(len(row[\"weights\"]) == 10 and abs(sum(row[\"weights\"]) - 1) < 1e-5 for row in rows)" || exit 1
done'
check 'a causal model begins with its begin token and sees no later one' 'favor attend lm --sequence MKTAYI \
--layer 0 --head 0 --all --json | python3 -c "
import json, sys
rows = json.load(sys.stdin)[\"rows\"]
assert len(rows) == 7 and rows[0][\"letter\"] == \"<\" and rows[0][\"weights\"][0] == 1
assert all(not any(row[\"weights\"][row[\"row\"] + 1 :]) for row in rows)"'
check 'the largest weights fall' 'favor attend mlm --data data.fasta --record protein3 --layer 0 --head 1 \
--rows 4,0 --top 5 --json | python3 -c "
import json, sys
result = json.load(sys.stdin)
assert result[\"sequence\"] == \"protein3\" and [row[\"row\"] for row in result[\"rows\"]] == [4, 0]
for row in result[\"rows\"]:
    weights = [entry[\"weight\"] for entry in row[\"top\"]]
    assert len(weights) == 5 and weights == sorted(weights, reverse=True)"'
q 'favor attend mlm --data data.fasta --record 2 --layer 0 --head 0 --png map.png -o rows.safetensors'
check 'the map is a PNG' 'head -c 8 map.png | od -An -tx1 | grep -q "89 50 4e 47 0d 0a 1a 0a"'
check 'the file holds all rows' 'python3 -c "
import json, struct
raw = open(\"rows.safetensors\", \"rb\").read()
header = json.loads(raw[8 : 8 + struct.unpack(\"<Q\", raw[:8])[0]])
(n,) = header[\"tokens\"][\"shape\"]
assert header[\"weights\"][\"shape\"] == [n, n] and header[\"rows\"][\"shape\"] == [n]"'
t 'favor attend mlm --sequence MKT --layer 0 --head 0'
t 'favor attend mlm --layer 0 --head 0 --all'
t 'favor attend mlm --sequence MKT --layer 0 --head 0 --rows 3'
t 'favor attend mlm --sequence MKT --layer 1 --head 0 --all'
t 'favor attend mlm --sequence MKT --layer 0 --head 2 --all'
t 'favor attend mlm --sequence "" --layer 0 --head 0 --all'
t 'favor attend mlm --data data.fasta --record nobody --layer 0 --head 0 --all'
q 'favor attend mlm --sequence MKT --layer 0 --head 0 --png missing/map.png'
q 'favor attend nothing --sequence MKT --layer 0 --head 0 --all'
check 'without a best model the last one serves, unless best was asked for' 'cp -r lm early && rm -r early/best &&
favor attend early --sequence MKT --layer 0 --head 0 --all && ! favor attend early --sequence MKT --layer 0 \
--head 0 --all --checkpoint best'
