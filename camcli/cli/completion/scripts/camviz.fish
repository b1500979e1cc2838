# completion of camviz in fish: camviz completion fish | source
function __camviz_complete
    set -l typed (commandline -opc)
    set -l current (commandline -ct)
    set -l answer (env _CAMVIZ_COMPLETE=fish $typed "$current" 2>/dev/null)
    for line in $answer[2..-1]
        printf '%s\n' "$line"
    end
    if test "$answer[1]" = files
        __fish_complete_path "$current"
    end
end
complete -c camviz -f -a '(__camviz_complete)'
