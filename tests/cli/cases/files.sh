# Bad input files: exit 3 and where the fault is; odd but sound ones are read.
fasta 30 40 7 >good.fasta
gzip -nk good.fasta
t 'favor data missing.fasta'
mkdir folder
t 'favor data folder'
: >empty.fasta
t 'favor data empty.fasta'
head -c 4096 /dev/zero >zero.bin
t 'favor data zero.bin'
printf 'MKVLA\nWWW\n' >nohead.fasta
t 'favor data nohead.fasta'
head -c 300 good.fasta.gz >cut.fasta.gz
t 'favor data cut.fasta.gz'
printf '>a\n>b\n\n' >norecord.fasta
t 'favor data norecord.fasta'
t 'favor data good.fasta missing.fasta'
printf '>a\r\nMKV\r\nLA\r\n>b\r\nwwyy\r\n' >crlf.fasta
t 'favor data crlf.fasta --json'
printf '>one\nM\n>one\nMKJ1V-*LA\n>none\n' >odd.fasta
t 'favor data odd.fasta --json'
awk 'BEGIN { print ">titin"; for (i = 0; i < 3500; i++) print "MKVLAAGIVG" }' >long.fasta
t 'favor data long.fasta | grep -E "records|letters|longest"'
t 'favor data good.fasta >plain; favor data good.fasta.gz | diff plain -'
t 'favor data --reader bytes long.fasta --json | python3 -m json.tool | grep -E "tokens|unknown" | head -1'
for command in "train --out run" "eval run"; do
    t "favor $command --data missing.fasta"
done
check 'nothing was created' 'test ! -e run'
t 'favor train --out run --data empty.fasta'
t 'favor train --out run --data cut.fasta.gz'
t 'favor train --out run --data zero.bin'
check 'nothing was left' 'test ! -e run'
