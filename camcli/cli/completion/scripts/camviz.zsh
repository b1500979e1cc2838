#compdef camviz
# completion of camviz in zsh: source <(camviz completion zsh)
_camviz() {
    local answer line
    local -a lines values shown
    answer=$(_CAMVIZ_COMPLETE=zsh "${(Q)words[1]}" "${(Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null) || return 1
    lines=("${(@f)answer}")
    for line in "${(@)lines[2,-1]}"; do
        if [[ -z ${line%%$'\t'*} ]]; then
            _message -r "${line#*$'\t'}"
            continue
        fi
        values+=("${line%%$'\t'*}")
        if [[ -n ${line#*$'\t'} ]]; then
            shown+=("${line%%$'\t'*}  -- ${line#*$'\t'}")
        else
            shown+=("${line%%$'\t'*}")
        fi
    done
    (( $#values )) && compadd -l -d shown -a values
    [[ $lines[1] == files ]] && _files
    return 0
}
if [[ $funcstack[1] == _camviz ]]; then
    _camviz "$@"
else
    compdef _camviz camviz
fi
