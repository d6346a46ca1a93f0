# Bytes of any text.
for i in $(seq 200); do echo "line $i of a text that says little"; done >text.txt
t 'favor train --data text.txt --reader bytes --task lm --out run $small --steps 5'
t 'favor eval run --data text.txt --split all'
q 'favor generate run --prompt "line 1" -n 10 --seed 2'
check 'resuming needs no settings' 'favor train --data text.txt --out run --steps 8 --resume'
check 'generate --json is JSON for any bytes' 'favor generate run -n 20 --temperature 5 --json | python3 -m json.tool'
