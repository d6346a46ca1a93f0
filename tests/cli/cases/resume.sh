# Stopped by a signal or killed, a run that is continued ends in the metrics of one that was not.
fasta 200 30 1 >p.fasta
export options="--data p.fasta --task lm $small --steps 600 --log-every 2 --eval-every 100 --eval-batches 4 --checkpoint-every 50 --seed 3"
favor train $options --out whole >.out 2>.err || cat .err
t 'favor train --data p.fasta --out whole'

# Starts or continues a run and sends it a signal once it has written some metrics.
stop() { # SIGNAL DIRECTORY LINES
    "$FAVOR" train $options --out "$2" --resume >.out 2>.err </dev/null &
    pid=$!
    for _ in $(seq 400); do
        [ "$(cat "$2/metrics.jsonl" 2>/dev/null | wc -l)" -ge "$3" ] && break
        sleep 0.01
    done
    kill "-$1" $pid
    wait $pid 2>/dev/null
    echo "SIG$1: exit $?"
    grep '^favor:' .err | sed -E 's/step [0-9]+/step N/'
}
stop INT cut 10
check 'a checkpoint is there' 'ls cut/trainer.json cut/trainer.safetensors cut/model.safetensors'
check 'it is not finished' 'test $(wc -l <cut/metrics.jsonl) -lt $(wc -l <whole/metrics.jsonl)'
stop TERM cut 40
stop KILL cut 80
q 'favor train $options --out cut --resume'
check 'the metrics are those of a run in one piece' 'diff <(metrics whole) <(metrics cut)'
check 'so is the model' 'cmp whole/model.safetensors cut/model.safetensors && cmp whole/best/model.safetensors cut/best/model.safetensors'
t 'favor train --data p.fasta --out cut --resume 2>&1 >/dev/null | grep ^model'
t 'favor train --data p.fasta --out cut --resume --d-model 32'
t 'favor train --data p.fasta p.fasta --out cut --resume'
head -c 100 cut/model.safetensors >short && cp short cut/model.safetensors
t 'favor train --data p.fasta --out cut --resume'
t 'favor eval cut --data p.fasta'
cp short whole/best/model.safetensors
t 'favor generate whole'
cp whole/model.safetensors whole/best/model.safetensors
cp short whole/model.safetensors
t 'favor generate whole'
q 'favor generate whole --checkpoint best'
