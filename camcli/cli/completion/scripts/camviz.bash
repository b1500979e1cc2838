# completion of camviz in bash: eval "$(camviz completion bash)"
_camviz() {
    local IFS=$'\n' kind answer
    COMPREPLY=()
    answer=$(_CAMVIZ_COMPLETE=bash "$1" "${COMP_LINE:0:COMP_POINT}" "$2" 2>/dev/null) || return
    kind=${answer%%$'\n'*}
    if [[ $answer == *$'\n'* ]]; then
        COMPREPLY=(${answer#*$'\n'})
    fi
    if [[ $kind == files ]]; then
        compopt -o filenames 2>/dev/null
        COMPREPLY+=($(compgen -f -- "$2"))
    fi
}
complete -F _camviz camviz
