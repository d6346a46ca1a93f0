# The help of every command comes out right, and the same options stand in manual and completion.
commands() { favor --help | sed -n 's/^  \([a-z]*\( [a-z]*\)\?\)  .*/\1/p'; }
favor completion bash >completion
commands | while read -r command; do
    export command
    must "$command: --help succeeds and is silent" 'favor $command --help >help 2>err && ! test -s err'
    must "$command: lines of at most 80 columns" '! sed "/^Examples:/,\$d" help | grep -nE "^.{81,}"'
    grep -oE '^ +(-[a-z], )?--[a-z-]+' help | grep -oE -- '--[a-z-]+' | sort -u >options
    case $command in
    man | completion) ;;
    *) must "$command: has --json" 'grep -qx -- --json options' ;;
    esac
    favor man $command | sed 's/\\-/-/g' | grep -oE '^(.fB-[a-z].fR, )?.fB--[a-z-]+' |
        grep -oE -- '--[a-z-]+' | sort -u >manual
    must "$command: the manual has the same options" 'diff options manual'
    sed -n "s/^ *'$command') options='\(.*\)' ;;/\1/p" completion | tr ' ' '\n' | grep . | sort -u >completed
    must "$command: the completion has the same options" 'diff options completed'
done
check 'there are commands' 'favor --help | grep -q "^  train  "'
t 'favor info --help'
t 'favor data --help'
t 'favor eval --help'
t 'favor generate --help'
t 'favor man --help'
t 'favor completion --help'
# Answered whatever else is there.
q 'favor eval --help'
q 'favor train --data x --help'
q 'favor -h'
q 'favor eval -h'
q 'favor bench -h'
