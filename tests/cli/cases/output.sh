# Standard output that cannot be written.
t 'favor info >/dev/full'
t 'favor info --json >/dev/full'
t 'favor man train >/dev/full'
t 'favor info >&-'
# A reader that leaves ends the program with a code and without a message.
t '(sleep 0.2; favor man train; echo "code $?" >&2) | true'
