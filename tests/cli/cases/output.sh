# Output that cannot be written: exit 4.
t 'favor info >/dev/full'
t 'favor info --json >/dev/full'
t 'favor man train >/dev/full'
t 'favor info >&-'
# A reader that leaves ends the program with a code and without a message.
t '(sleep 0.2; favor man train; echo "code $?" >&2) | true'
fasta 60 30 1 >p.fasta
touch file
t 'favor train --data p.fasta --out file $small --steps 1'
t 'favor train --data p.fasta --out file/run $small --steps 1'
t 'favor train --data p.fasta --out /dev/null/run $small --steps 1'
t 'favor train --data p.fasta --out p.fasta $small --steps 1'
q 'favor train --data p.fasta --out run $small --steps 1 >/dev/full'
t 'favor train --data p.fasta --out huge --length 4096 --batch 100000'
check 'nothing was left of it' 'test ! -e huge'
