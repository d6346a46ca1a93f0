# Texts of files that a model continues: many together, each as it is alone.
fasta 200 8 1 >p.fasta
awk '!/>/ { print substr($0, 1, 1 + NR % 13) }' p.fasta | head -70 >texts
for attention in exact relu; do
    q "favor train --data p.fasta --task lm --attention $attention --out $attention \$small --steps 40"
done
q 'favor train --data p.fasta --task lm --positions none --attention favor+ --out endless $small --steps 3'
one_by_one() { # model, options...
    while read -r text; do
        favor generate "$1" --prompt "$text" "${@:2}" || return
    done <texts
}
export -f one_by_one
for attention in exact relu; do
    check "$attention: a text among many is what it is alone" "
        one_by_one $attention -n 20 --seed 5 >alone 2>told && favor generate $attention --input texts -n 20 --seed 5 >among 2>told &&
        cmp alone among && test \$(wc -l <among) = 70 && test \$(sort -u among | wc -l) -gt 50"
done
check 'some end before others, some are cut' 'favor generate relu --input texts -n 20 --seed 5 --json 2>told >rows && python3 -c "
import json
rows = json.load(open(\"rows\"))
assert [row[\"prompt\"] for row in rows] == open(\"texts\").read().split(\"\\n\")[:-1]
assert \"\".join(row[\"text\"] + \"\\n\" for row in rows) == open(\"among\").read()
assert {row[\"ended\"] for row in rows} == {True, False} and len({len(row[\"ids\"]) for row in rows}) > 10
assert rows[6][\"name\"] == \"texts:7\""'
check 'threads change nothing' 'favor generate relu --input texts -n 20 --seed 5 --threads 3 2>told | cmp - among'
check 'bf16 changes no text for the others either' '
    one_by_one relu -n 20 --seed 5 --dtype bf16 >alone 2>told && favor generate relu --input texts -n 20 --seed 5 --dtype bf16 2>told | cmp - alone'
check 'the likeliest tokens too, echoed' '
    one_by_one relu -n 20 --top-k 1 --echo >alone 2>told && favor generate relu --input texts -n 20 --top-k 1 --echo 2>told | cmp - alone'
check 'a long text keeps short ones waiting, and long ones' '
    printf "L\\nA\\nG\\n" >letters
    for letter in L A G; do favor generate endless --prompt $letter -n 5000 --top-k 1; done >alone 2>told &&
    favor generate endless --input letters -n 5000 --top-k 1 2>told | cmp - alone && test $(wc -c <alone) -gt 15000'
check 'several files, plain and gzip, and FASTA' '
    head -20 texts | gzip >part.gz && favor generate relu --input part.gz texts -n 20 --seed 5 2>told >b &&
    head -20 among | cat - among | cmp - b && awk "{ print \">\" NR; print }" letters >letters.fasta &&
    favor generate endless --input letters.fasta --reader fasta -n 9 --seed 2 >a && favor generate endless --input letters -n 9 --seed 2 | cmp - a'
check 'an empty text begins a sequence' '
    printf "\\tL\\n" >empty && favor generate endless -n 9 --seed 2 >alone && favor generate endless --input empty -n 9 --seed 2 | cmp - alone'
t 'favor generate relu --input texts -n 0 | sort | uniq -c'
t 'favor generate relu --input letters -n 31 --top-k 1 >some'
t 'favor generate relu --input letters -n 100 --top-k 1 >some'
(cat texts && printf 'LAGVSERTIDPKQNFYMHWCLAGVSERTIDPKQNFYMHWC\n') >long
check 'a text that is wrong is told when those before it are done' '
    favor generate relu --input long -n 20 --seed 5 >some 2>told; test $? = 3 && cmp some among && grep -c "^favor: long:71: " told | grep -qx 1'
t 'favor generate relu --input long --top-k 1 >some'
t 'favor generate relu --input texts --prompt L'
t 'favor generate relu --reader fasta'
t 'favor generate relu --input texts --state-out state'
t 'favor generate relu --input missing'
check 'a signal leaves the beginning of what would have come' '
    interrupted some generate endless --input letters -n 1000000000 --top-k 1
    test $? = 130 && test $(wc -l <some) = 1 && size=$(($(wc -c <some) - 1)) && test $size -gt 0 &&
    favor generate endless --prompt L -n $size --top-k 1 2>told | cmp - some'
check 'a reader that leaves ends it' '
    (favor generate endless --input letters -n 1000000000 --top-k 1; echo $? >code) | head -c 10 && test $(cat code) = 4'
