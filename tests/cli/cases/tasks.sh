# Tasks that read columns: a label a text, a label two texts, a text from another.
words() { # a text of letters a to d for each line, from a seed
    awk -v n="$1" -v x="$2" 'BEGIN {
        for (r = 0; r < n; r++) {
            x = x * 16807 % 2147483647
            word = ""
            for (i = 0; i < 3 + x % 7; i++) { y = (x + i * i * 7919) % 4; word = word substr("abcd", y + 1, 1) }
            print word
        }
    }'
}
words 120 5 >a.txt
words 120 9 >b.txt
awk '{ print (substr($0, 1, 1) > "b") "\t" $0 }' a.txt >classify.tsv
paste a.txt b.txt | awk '{ print (NR % 2) "\t" $1 "\t" (NR % 2 ? $1 : $2) }' >match.tsv
awk '{ print $0 "\t" toupper($0) }' a.txt | gzip >translate.tsv
few="$small --reader tsv --steps 8 --eval-every 4 --lr 0.01 --valid-fraction 0.2"
export few
for task in classify match translate; do
    q "favor train --data $task.tsv --task $task --out $task \$few"
    check "$task: metrics have the usual fields" "favor eval $task --data $task.tsv --split valid --json | python3 -c '
import json, sys
row = json.load(sys.stdin)
assert row[\"tokens\"] > 0 and 0 <= row[\"accuracy\"] <= 1 and row[\"loss\"] > 0 and row[\"empirical\"][\"loss\"] > 0'"
    check "$task: resuming needs no settings" "favor train --data $task.tsv --out $task --steps 12 --resume"
done
t 'favor data --reader tsv --task classify classify.tsv'
t 'favor data --reader tsv --task match match.tsv --json'
t 'favor generate match'
t 'favor train --data classify.tsv --task match --out x $few'
t 'favor train --data classify.tsv --task lm --out x $few'
t 'favor train --data classify.tsv --task classify --out x $small'
t 'favor train --data classify.tsv --task classify --out x $few --packing sequences'
t 'favor train --data classify.tsv --task classify --out x $few --causal'
t 'favor train --data classify.tsv --task classify --out x $few --set head=pair'
t 'favor train --data classify.tsv --task classify --out x $few --set is_encoder_decoder=true'
t 'favor train --data classify.tsv --task classify --out x $few --tie-embeddings'
printf '0\tab\n7\tcd\n' >bad.tsv
t 'favor train --data bad.tsv --task classify --out x $few'
t 'favor train --data bad.tsv --task classify --out x $few --reversible --gradient-checkpointing'
t 'ls x'
q 'favor train --data translate.tsv --task translate --out rev $few --reversible --decoder-layers 2'
for task in classify match translate; do
    q "favor bench train --task $task --length 16 --layers 1 --d-model 16 --heads 2 --attention favor+ --repeat 1"
done
