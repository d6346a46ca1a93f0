# What cannot be: the exit code, and a message that names it. Tensors: T tokens, H heads of width D, values of width V.
need python3
cat >make.py <<'END'
import json, random, struct, sys
def make(path, T=6, H=2, D=4, V=3, **extra):
    rand = random.Random(1)
    tensors = {"q": [T, H, D], "k": [T, H, D], "v": [T, H, V]}
    header, data = {}, b""
    for name, value in list(tensors.items()) + list(extra.items()):
        kind = "F32"
        if name in tensors and name in extra:
            value, extra[name] = extra[name], None
        if value is None:
            continue
        if isinstance(value, tuple):  # shape and one number for all
            shape, fill = value
            count = 1
            for n in shape:
                count *= n
            body = struct.pack("<%df" % count, *[fill] * count)
        elif isinstance(value, str):  # whole numbers
            numbers = [int(n) for n in value.split()]
            kind, shape, body = "I64", [len(numbers)], struct.pack("<%dq" % len(numbers), *numbers)
        else:
            shape, count = value, 1
            for n in shape:
                count *= n
            body = struct.pack("<%df" % count, *[rand.uniform(-1, 1) for _ in range(count)])
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + len(body)]}
        data += body
    text = json.dumps(header).encode()
    open(path, "wb").write(struct.pack("<Q", len(text)) + text + data)
eval("make('t', %s)" % sys.argv[1])
END
make() { python3 make.py "$1"; }
try() { t "favor apply -i t -o o --attention $*"; }

make ''
# Options that a kind does not take.
try 'favor+ --window 3'
try 'exact --buckets 4'
try 'exact --psi 1'
try 'window --stride 2'
try 'relu --tau 2'
try 'exact --projection iid'
try 'exact --denominator abs:1'
try 'exact --trainable-projection'
try 'relu --trainable-projection'
try 'exact --position-skip 2'
try 'exact --rotary-base 100'
try 'favor+ --position-bias kernel --position-skip 2'
try 'favor+ --position-bias fastrpb --position-fft 4096'
try 'exact --position-bias kernel --position-fft 4096'
try 'favor+ --position-bias kernel --position-fft -1'
try 'favor+ --projection none'
try 'favor+ --features 0.5'
try 'favor+ --features -1'
try 'favor+ --projection circular'
try 'rfa --tau -1'
try 'window --window x'
# Modifiers that do not go together.
try 'favor+ --gate'
try 'favor+ --decay'
try 'exact --gate --causal'
try 'window --decay --causal'
try 'window --position-bias kernel'
# Kinds and what they need.
try 'favor++ --causal'
try 'favor# --causal'
try 'favor++ --causal --psi -2'
try 'linformer --causal'
try 'linformer'
try 'rmf-exp --rmf-law geometric:1'
try 'rmf-exp --rmf-law cauchy:1'
try 'rmf-exp --rmf-law poisson'
try 'fixed --block 4 --globals 5'
# Required tensors are missing.
try 'favor+ --causal --gate'
try 'favor+ --causal --decay'
try 'exact --position-bias fastrpb'
try 'exact --position-bias fastrpb-2d'
# Sizes that cannot be.
make 'D=6'
try 'favor+ --projection hadamard'
make 'D=3'
try 'exact --rotary'
make 'D=1'
q 'favor apply -i t -o o --attention favor+'
q 'favor apply -i t -o o --attention exact'
q 'favor apply -i t -o o --attention taylor --causal'
try 'exact --rotary'
make 'V=0'
try 'favor+'
make 'D=0'
try 'favor+'
make 'T=0'
q 'favor apply -i t -o o --attention favor+ --causal'
# Tensors that do not fit, or hold what they must not.
make 'gate=([6,2],1.0)'
try 'favor+ --causal'
make 'gate=([6,2],float("nan"))'
try 'favor+ --causal'
make 'gate=([6,3],0.5)'
try 'favor+ --causal'
make 'gate=([6,2],0.5), decay=([2],0.5)'
q 'favor apply -i t -o o --attention favor+ --causal'
make 'decay=([2],0.0)'
try 'favor+ --causal'
make 'decay=([2],1.5)'
try 'favor+ --causal'
make 'decay=([1],0.5)'
try 'favor+ --causal'
make 'gate=([6,2],0.5)'
try 'favor+'
try 'exact --causal'
make 'position_bias=[2,9]'
try 'exact'
make 'position_bias=[2,10]'
try 'exact'
make 'position_bias=[2,3]'
try 'exact --position-bias fastrpb-2d'
make 'bandwidth=[4]'
try 'favor+'
make 'bandwidth=[3]'
try 'rfa'
make 'projection=[5,4]'
try 'rfa --features 6'
try 'relu --projection none'
try 'taylor'
make 'rmf_degrees="1 2 0", rmf_signs=([3,4],1.0)'
q 'favor apply -i t -o o --attention rmf-exp'
make 'rmf_degrees="0 0", rmf_signs=([0,4],1.0)'
q 'favor apply -i t -o o --attention rmf-exp'
make 'rmf_degrees="1 2 1", rmf_signs=([3,4],1.0)'
try 'rmf-exp'
make 'rmf_degrees="1 -1 1", rmf_signs=([1,4],1.0)'
try 'rmf-exp'
make 'rmf_degrees="1 2", rmf_signs=([3,4],0.5)'
try 'rmf-exp'
make 'rmf_degrees="1 2"'
try 'rmf-exp'
make 'gates=([6,2],0.5)'
try 'favor+'
# A kernel beyond its domain is told, and its numbers are finite.
make 'q=([6,2,4],3.0)'
t 'favor apply -i t -o o --attention rmf-inv --features 8'
