# Completion of cowimg(1) for bash.  What there is comes from the program itself.

_cowimg_reply() {
	local head=$1 cur=$2 typed=$1$2 word cut
	shift 2
	cut=${typed%"${typed##*[=:]}"}
	for word in "$@"; do
		[[ $word == "$cur"* ]] || continue
		word=$head$word
		COMPREPLY+=("${word#"$cut"}")
		[[ $word == *= ]] && compopt -o nospace 2>/dev/null
	done
}

_cowimg_files() {
	compopt -o filenames 2>/dev/null
	mapfile -t COMPREPLY < <(compgen -f -- "$1")
}

_cowimg_commands() {
	awk '/^Command syntax:/ { on = 1; next } on && /^$/ { exit } on && /^  [a-z]/ { print $1 }' <<<"$1"
}

# Options of a subcommand: its usage line, and its paragraph of parameters.
_cowimg_options() {
	awk -v c="$2" '
		$0 ~ "^  " c " " { print }
		/^[A-Z]/ { on = $0 == "Parameters to " c " subcommand:" }
		on { print }' <<<"$1" |
		grep -oE '(^|[][ |(])--?[A-Za-z][A-Za-z-]*=?' | grep -oE -- '-.*' | sort -u
}

_cowimg_formats() {
	sed -n 's/^Supported formats: //p' <<<"$1"
}

# The value of the last word that begins with one of these options.
_cowimg_format_of() {
	local i
	for ((i = 1; i < ${#words[@]} - 1; i++)); do
		[[ ${words[i]} == "$1" ]] && echo "${words[i + 1]}"
	done | tail -n 1
}

# -o: names of create options of the format that will be made.
_cowimg_create_options() {
	local cowimg=$1 cur=$2 fmt
	case ${words[1]} in
	create | amend) fmt=$(_cowimg_format_of -f) ;;
	*) fmt=$(_cowimg_format_of -O) ;;
	esac
	[[ ${words[1]} == amend && ! $fmt ]] && fmt=qcow2
	_cowimg_reply "${cur%"${cur##*,}"}" "${cur##*,}" help \
		$("$cowimg" create -f "${fmt:-raw}" -o help x 2>/dev/null | sed -n 's/^  \([^=]*=\).*/\1/p')
}

_cowimg() {
	local cowimg=$1 line=${COMP_LINE:0:COMP_POINT} cur prev help
	local -a words
	read -ra words <<<"$line"
	[[ $line == *[[:space:]] ]] && words+=("")
	cur=${words[-1]}
	prev=${words[-2]}
	COMPREPLY=()
	help=$("$cowimg" --help 2>/dev/null)
	if ((${#words[@]} == 2)); then
		_cowimg_reply "" "$cur" --help --version $(_cowimg_commands "$help")
		return
	fi
	case $cur in
	--output=*) _cowimg_reply --output= "${cur#*=}" human json; return ;;
	--preallocation=*) _cowimg_reply --preallocation= "${cur#*=}" off metadata falloc full; return ;;
	-*) _cowimg_reply "" "$cur" $(_cowimg_options "$help" "${words[1]}"); return ;;
	esac
	case ${words[1]},$prev in
	check,-r) _cowimg_reply "" "$cur" leaks all; return ;;
	bench,-i) _cowimg_reply "" "$cur" threads native io_uring; return ;;
	snapshot,-[acd] | resize,-o) return ;;
	esac
	case $prev in
	-f | -O | -F | --format) _cowimg_reply "" "$cur" $(_cowimg_formats "$help") ;;
	-t | -T) _cowimg_reply "" "$cur" none writeback writethrough directsync unsafe ;;
	-o) _cowimg_create_options "$cowimg" "$cur" ;;
	*) _cowimg_files "$cur" ;;
	esac
}

complete -F _cowimg cowimg
