# The whole path: data, train, eval, generate, for next tokens and for masked ones.
fasta 200 30 1 >p.fasta
t 'favor train --data p.fasta --task lm --out lm $small --steps 30 --eval-every 15 --checkpoint-every 10 --seed 3'
check 'the run directory is whole' 'ls lm/config.json lm/model.safetensors lm/best/config.json \
    lm/best/model.safetensors lm/trainer.json lm/trainer.safetensors lm/metrics.jsonl'
check 'metrics have their fields' 'python3 -c "
import json
rows = [json.loads(line) for line in open(\"lm/metrics.jsonl\")]
fields = \"step tokens split loss accuracy perplexity bits_per_token learning_rate grad_norm timing\".split()
assert rows and all(f in row for row in rows for f in fields)
assert all(f in row[\"timing\"] for row in rows for f in (\"seconds\", \"tokens_per_s\", \"share_of_peak\"))
assert {\"train\", \"valid\"} == {row[\"split\"] for row in rows}"'
t 'favor eval lm --data p.fasta --split valid'
t 'favor eval lm --data p.fasta --split all'
check 'eval --json has its fields' 'favor eval lm --data p.fasta --split test --json | python3 -c "
import json, sys
row = json.load(sys.stdin)
four = \"loss accuracy perplexity bits_per_token\".split()
assert set(row) == {\"split\", \"tokens\", \"empirical\", *four} and set(row[\"empirical\"]) == set(four)
assert row[\"split\"] == \"test\" and row[\"tokens\"] > 0"'
check 'the same evaluation twice' 'favor eval lm --data p.fasta --json >a; favor eval lm --data p.fasta --json | cmp - a'
check 'threads change no bit' 'favor eval lm --data p.fasta --json --threads 3 | cmp - a'
check 'generated text is letters alone' 'favor generate lm --prompt LAGV -n 20 --seed 1 | grep -qxE "[A-Z]{0,20}"'
check 'the same text from the same seed' \
    'test "$(favor generate lm --prompt LA -n 20 --seed 5)" = "$(favor generate lm --prompt LA -n 20 --seed 5)"'
check 'the likeliest text needs no seed' \
    'test "$(favor generate lm -n 9 --temperature 0 --seed 1)" = "$(favor generate lm -n 9 --temperature 0)"'
check 'stopped and continued is one text' '
    favor generate lm --prompt LAGV -n 14 --seed 1 >whole
    favor generate lm --prompt LAGV -n 6 --seed 1 --state-out state >first
    favor generate lm -n 8 --seed 1 --state-in state >second
    test "$(cat whole)" = "$(cat first)$(cat second)"'
check 'generate --json holds the text' '
    test "$(favor generate lm --prompt LAGV -n 14 --seed 1 --json | python3 -c "
import json, sys
print(json.load(sys.stdin)[\"text\"])")" = "$(cat whole)"'
check 'echo prints the prompt' 'test "$(favor generate lm --prompt LAGV -n 14 --seed 1 --echo)" = "LAGV$(cat whole)"'
t 'favor generate lm --prompt LA -n 0'
t 'favor generate lm --prompt LA1 -n 0'
t 'favor generate lm -n 1000 --top-k 1 | wc -l'
t 'favor generate nothere'
check 'without a best model the last one serves, unless best was asked for' '
    cp -r lm early && rm -r early/best &&
    favor generate lm -n 20 --seed 1 --checkpoint last >last && favor generate early -n 20 --seed 1 | cmp - last &&
    ! favor generate early -n 20 --checkpoint best'
check 'exact attention has room for what a state holds' '
    favor train --data p.fasta --task lm --attention exact --positions none --out exact $small --steps 3 &&
    favor generate exact -n 30 --seed 4 >whole &&
    favor generate exact -n 20 --seed 4 --state-out state >first &&
    favor generate exact -n 10 --seed 4 --state-in state >second &&
    test "$(cat whole)" = "$(cat first)$(cat second)"'
check 'so have heads of two kinds' '
    favor train --data p.fasta --task lm --attention exact --local-heads 1 --local-window 3 --positions none \
        --out mixed $small --steps 3 &&
    favor generate mixed -n 30 --seed 4 >whole &&
    favor generate mixed -n 20 --seed 4 --state-out state >first &&
    favor generate mixed -n 10 --seed 4 --state-in state >second &&
    test "$(cat whole)" = "$(cat first)$(cat second)"'
t 'favor generate lm --state-in state'
t 'favor generate lm --state-in p.fasta'
t 'favor generate lm --prompt LA -n 3 --state-out nowhere/state >/dev/null'
t 'favor train --data p.fasta --task mlm --attention relu --out mlm $small --steps 10 --positions none'
t 'favor eval mlm --data p.fasta --split valid'
t 'favor generate mlm --prompt LA'
t 'favor train --data p.fasta --task mlm --causal --out no $small'
check 'train --json is one object' "favor train --data p.fasta --out json $small --steps 3 --json | python3 -c '
import json, sys
row = json.load(sys.stdin)
assert row[\"steps\"] == 3 and row[\"parameters\"] > 0 and row[\"valid\"][\"tokens\"] > 0
assert 0 < row[\"first_step_seconds\"] < row[\"seconds\"]'"
check 'a reader that leaves ends the generation' '
    favor train --data p.fasta --task lm --positions none --out endless $small --steps 3 &&
    (favor generate endless -n 1000000000 --top-k 1 --prompt L; echo $? >code) | head -c 10 && test $(cat code) = 4'
check 'a signal ends it cleanly' '
    interrupted text generate endless -n 1000000000 --top-k 1 --prompt L --state-out state
    test $? = 130 && test -e state'
t 'favor generate lm -n 20 --seed 4 2>told | head -c 1 | wc -c; cat told'
test -e /dev/full && t 'favor generate lm -n 5 >/dev/full'
check 'the memory predicted holds what reading and measuring take' "favor train --data p.fasta --out small $small --steps 2 --json | python3 -c '
import json, sys
result = json.load(sys.stdin)
assert 0.8 * result[\"peak_bytes\"] <= result[\"predicted_bytes\"] <= 1.5 * result[\"peak_bytes\"], result'"
