# shellcheck shell=bash
# What the cases use.

favor() { "$FAVOR" "$@"; }
export -f favor

# Runs a command line and prints its transcript.
t() {
    printf '$ %s\n' "$1"
    bash -c "$1" >.out 2>.err </dev/null
    code=$?
    awk '{ print "> " $0 }' .out
    awk '{ print "! " $0 }' .err
    echo "= $code"
}

# Runs a command line of which only the exit code matters.
q() {
    printf '$ %s\n' "$1"
    bash -c "$1" >.out 2>.err </dev/null
    echo "= $?"
}

# Prints whether a condition holds.
check() {
    if bash -c "$2" >.out 2>&1 </dev/null; then
        echo "ok $1"
    else
        echo "NOT OK $1"
        cat .out
    fi
}

# The same, silent when it holds: for conditions whose number grows with the program.
must() {
    check "$@" | grep -v '^ok '
}

# Leaves the case out, if a tool it needs is not there.
need() {
    command -v "$1" >/dev/null || {
        echo "SKIP $1 is not installed"
        exit 0
    }
}

# Random proteins with the same letters everywhere: `fasta RECORDS LENGTH SEED`.
fasta() {
    awk -v records="$1" -v length_="$2" -v x="$3" 'BEGIN {
        letters = "LAGVSERTIDPKQNFYMHWC"
        for (r = 1; r <= records; r++) {
            printf ">protein%d\n", r
            x = x * 16807 % 2147483647
            n = length_ + x % length_
            for (i = 0; i < n; i++) {
                x = x * 16807 % 2147483647
                # A chain: a letter often follows its neighbour in the alphabet.
                at = x % 3 ? (at + 1) % 20 : x % 20
                printf "%s%s", substr(letters, at + 1, 1), i % 60 == 59 ? "\n" : ""
            }
            print ""
        }
    }'
}

# Interrupts a command that would go on for long, once it wrote to a file: `interrupted FILE ARGUMENT...`; its exit code.
# How long it needs to come so far depends on the machine: each trial waits twice as long.
interrupted() {
    for seconds in 1 2 4 8 16 32; do
        # In the foreground: else the signal goes to the process and to its group, and a second one ends it at once.
        timeout --foreground --preserve-status -s INT "$seconds" "$FAVOR" "${@:2}" >"$1"
        code=$?
        test -s "$1" && break
    done
    return "$code"
}
export -f interrupted

# metrics.jsonl without what the clock decides.
metrics() {
    python3 -c '
import json, sys
for line in open(sys.argv[1]):
    row = json.loads(line)
    row.pop("timing", None)
    print(json.dumps(row, sort_keys=True))' "$1/metrics.jsonl"
}
export -f metrics

# A model small enough to train in a blink.
small="--layers 1 --d-model 16 --heads 2 --ffn 32 --features 16 --length 32 --batch 2 --dropout 0.1 --threads 1"
export small
