# Translation: what is learned is generated, and what cannot be is said.
words() { # different texts of letters a to d, from a seed
    awk -v n="$1" -v x="$2" 'BEGIN {
        while (n > 0) {
            word = ""
            x = x * 16807 % 2147483647
            for (i = 3 + x % 5; i > 0; i--) { x = x * 16807 % 2147483647; word = word substr("abcd", x % 4 + 1, 1) }
            if (!seen[word]++) { print word; n-- }
        }
    }'
}
reversed() { rev "$1" | tr a-d A-D | paste "$1" -; }
words 700 3 >all
head -600 all >known
tail -100 all >new
reversed known >reverse.tsv
reversed new >new.tsv
some="--layers 1 --d-model 32 --heads 2 --ffn 64 --length 10 --batch 64 --lr 0.01 --set warmup_steps=20 --dropout 0 --threads 1"
export some
for attention in exact favor+ relu; do
    q "favor train --data reverse.tsv --reader tsv --task translate --attention $attention --out $attention \$some --steps 250"
    check "$attention: texts never seen are reversed" \
        "favor generate $attention --input new --echo --temperature 0 >out && test \$(wc -l <out) = 100 &&
        test \$(sort out new.tsv | uniq -d | wc -l) -ge 80"
done
q 'favor train --data reverse.tsv --reader tsv --task translate --out few $some --steps 8 --positions none'
check 'the translation beside a text is not looked at' '
    favor generate exact --input new.tsv --temperature 0 >a && favor generate exact --input new --temperature 0 | cmp - a'
check 'several files, plain and gzip' '
    head -20 new | gzip >part.gz && favor generate exact --input part.gz new --temperature 0 >b && head -20 a | cat - a | cmp - b'
check 'a text alone is translated as among others, drawn too' '
    favor generate few --input new -n 7 --seed 3 --json 2>told >rows &&
    for i in 1 8 40 100; do
        favor generate few --prompt "$(sed -n "${i}p" new)" -n 7 --seed 3 --json 2>told >"row$i" || exit
    done && python3 -c "
import json
rows = json.load(open(\"rows\"))
assert len({row[\"ended\"] for row in rows}) == 2
for i in (1, 8, 40, 100):
    alone, among = json.load(open(\"row%d\" % i)), rows[i - 1]
    del among[\"name\"]
    assert alone == among"'
check 'threads change nothing' '
    favor generate few --input new -n 7 --seed 3 --json --threads 3 2>told | cmp - rows'
check '--json holds a row for each' 'favor generate exact --input new --temperature 0 --json >rows && python3 -c "
import json
rows = json.load(open(\"rows\"))
assert [row[\"prompt\"] for row in rows] == open(\"new\").read().split()
assert \"\".join(row[\"text\"] + \"\\n\" for row in rows) == open(\"a\").read()
assert rows[6][\"name\"] == \"new:7\" and all(row[\"ended\"] and bytes(row[\"ids\"]).decode() == row[\"text\"] for row in rows)" &&
    favor generate exact --prompt abc --temperature 0 --json | python3 -c "
import json, sys
row = json.load(sys.stdin)
assert row[\"prompt\"] == \"abc\" and row[\"text\"] == \"CBA\" and row[\"ended\"] and \"name\" not in row"'
awk '{ print ">text" NR; print }' new >new.fasta
check 'records of FASTA are texts too' '
    favor generate exact --input new.fasta --reader fasta --temperature 0 | cmp - a'
t 'favor generate exact --prompt abc --temperature 0 -n 2 >cut'
t 'favor generate exact --prompt abc --temperature 0 -n 20 >cut'
t 'favor generate exact --prompt abc -n 0 --echo'
t 'favor generate exact'
t 'favor generate exact --prompt ""'
t 'favor generate exact --prompt abcdabcdab'
t 'favor generate exact --prompt abc --input new'
t 'favor generate exact --prompt abc --reader fasta'
t 'favor generate exact --input new --state-out state'
t 'favor generate exact --input missing'
t 'favor generate exact --input new --reader fasta'
printf 'abc\n\tAB\n' >empty.tsv
t 'favor generate exact --input empty.tsv --temperature 0 >some'
t 'wc -l <some'
printf 'abc\nabcdabcdab\n' >long.tsv
t 'favor generate exact --input long.tsv --temperature 0 >some'
printf 'a\tb\tc\n' >columns.tsv
t 'favor generate exact --input columns.tsv'
awk '{ for (i = 0; i < 2000; i++) print }' new >many
check 'a reader that leaves ends the translations' '
    (favor generate few --input many -n 1000000000 --top-k 1; echo $? >code) | head -c 10 && test $(cat code) = 4'
check 'a signal ends them cleanly' '
    interrupted rows generate few --input many -n 1000000000 --top-k 1 --json
    test $? = 130 && python3 -c "import json; assert 0 < len(json.load(open(\"rows\"))) < 200000"'
