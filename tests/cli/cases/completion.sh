# The completion script loads, and completes what it should.
favor completion bash >favor.bash
check 'it is valid bash' 'bash -n favor.bash'
complete_() {
    echo "complete: $*"
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) bash --norc -c '
        . ./favor.bash
        COMP_WORDS=("$@")
        COMP_CWORD=$(($# - 1))
        _favor
        printf "  %s\n" "${COMPREPLY[@]}"' favor "$@"
}
complete_ favor ge
complete_ favor --v
complete_ favor eval --sp
complete_ favor eval --split ''
complete_ favor train --positions s
complete_ favor train --attention fav
touch some.fasta
complete_ favor eval --data so
