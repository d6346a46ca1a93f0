# Manual pages render without a warning.
need groff
{
    echo
    favor --help | sed -n 's/^  \([a-z]*\( [a-z]*\)\?\)  .*/\1/p'
} | while read -r page; do
    must "manual $page renders" "favor man $page | groff -man -Tutf8 -ww -z 2>&1 | (! grep .)"
done
q 'favor man train info'
t 'favor man info'
