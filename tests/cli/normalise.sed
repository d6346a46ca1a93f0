# Values that differ from machine to machine or from run to run.
s/[0-9.]+ ([KMGTP]i)?B\b/SIZE/g
s/[0-9.]+ ?[kMGTP]?( tokens?|FLOP)/N\1/g
s/[0-9]+:[0-9]{2}(:[0-9]{2})?\b/TIME/g
s/^(> +processor +).*/\1NAME/
s/^(> +kernel set +).*/\1NAME/
s/^(> +gemm +).*/\1NAME/
s/^(> +threads +)[0-9]+$/\1N/
s/(it can run:).*/\1 NAMES/
s/(the first after) [0-9.]+ s/\1 X s/
# Training: what depends on rounding.
s/(loss|accuracy|perplexity|bits per token) [0-9.]+( %)?/\1 X\2/g
s/^(> (model|empirical)) [-0-9. %]+$/\1 X/
# Progress comes when it comes.
/^! (train|scan|evaluate|approx|bench|attend|generate|translate) [0-9]+/d
s/(fingerprint|this one has) [0-9a-f]{16}/\1 F/g
# A state names every setting, of which there will be more.
s/\([0-9]+ bytes needed\)/(N bytes needed)/
/^! favor: generate: N tokens in/d
