# Manual pages render without a warning.
need groff
for page in '' train eval generate data info man completion; do
    check "manual $page renders" "favor man $page | groff -man -Tutf8 -ww -z 2>&1 | (! grep .)"
done
q 'favor man train info'
t 'favor man info'
