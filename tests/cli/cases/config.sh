# Wrong settings, in files and on the command line.
try() { t "favor train --data none.fasta --out run $1"; }
try '--set foo'
try '--set =1'
try '--set hidden_siz=1'
try '--set hidden_size='
try '--set hidden_size=wide'
try '--set hidden_size=-5'
try '--set hidden_size=1e400'
try '--set learning_rate=true'
try '--set tie_word_embeddings=1'
try '--set position_embedding_type=rotary'
try '--config missing.json'
mkdir folder
try '--config folder'
: >empty.json
try '--config empty.json'
printf '{"hidden_size": 64,\n "num_hidden_layer": 2}\n' >unknown.json
try '--config unknown.json'
printf '{\n "hidden_size": "64"\n}\n' >type.json
try '--config type.json'
printf '{\n "hidden_size": 99999999999999999999\n}\n' >huge.json
try '--config huge.json'
printf '{\n "attention": {\n  "kind": "favor+",\n  "feature": 3 } }\n' >nested.json
try '--config nested.json'
printf '{"hidden_size": 64' >cut.json
try '--config cut.json'
printf '[1, 2]\n' >array.json
try '--config array.json'
printf '{"seed": 1, "seed": 2}\n' >twice.json
try '--config twice.json'
head -c 2000 /dev/zero >binary.json
try '--config binary.json'
check 'nothing was created' 'test ! -e run'
