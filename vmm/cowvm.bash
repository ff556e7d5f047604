# Completion of cowvm(1) for bash.  What there is comes from the program itself.

# Reply with those candidates that begin as `cur`, after `head`, which is typed already.
# Readline replaces only what follows the last break character.
_cowvm_reply() {
	local head=$1 cur=$2 typed=$1$2 word cut
	shift 2
	cut=${typed%"${typed##*[=:]}"}
	for word in "$@"; do
		[[ $word == "$cur"* ]] || continue
		word=$head$word
		COMPREPLY+=("${word#"$cut"}")
		[[ $word == *[=:/] ]] && compopt -o nospace 2>/dev/null
	done
}

_cowvm_files() {
	local file cut=${1%"${1##*[=:]}"}
	local -a found
	mapfile -t found < <(compgen -f -- "$2")
	compopt -o filenames 2>/dev/null
	for file in "${found[@]}"; do
		file=$1$file
		COMPREPLY+=("${file#"$cut"}")
	done
}

# The lines of -help that say what an option takes.
_cowvm_usage() {
	"$1" -help 2>/dev/null | awk -v o="-$2" '
		/^-/ { on = $1 == o }
		/^$/ { on = 0 }
		on && (/^-/ || /^ +(\[|-netdev |,)/ || !/^ {16}/)'
}

# Does it take no argument?  In -help its meaning follows, at the 17th character.
_cowvm_is_flag() {
	"$1" -help 2>/dev/null | awk -v o="-$2" '
		$1 == o { flag = length(o) > 14 || substr($0, length(o) + 2, 1) == " "; exit }
		END { exit !flag }'
}

# Values of one key, as the usage has them: "key=a|b|c".
_cowvm_values() {
	local text=$1 key=$2 list
	list=$(grep -oE "(^|[][, ])$key=[]a-z0-9_|[-]+" <<<"$text" | head -n 1)
	list=${list#*=}
	[[ $list == *"|"* ]] && tr '|' '\n' <<<"${list//[][]/}"
}

_cowvm_keys() {
	grep -oE '[a-z][a-z0-9_.-]*=' <<<"$1" | sort -u
}

_cowvm_devices() {
	"$1" -device help 2>/dev/null | sed -n 's/^name "\([^"]*\)".*/\1/p'
}

# The part of a list that is being typed: key=value, or its first word.
_cowvm_list() {
	local cowvm=$1 option=$2 typed=$3
	local item=${typed##*,} first=${typed%%,*} usage key
	local head=${typed%"$item"}

	usage=$(_cowvm_usage "$cowvm" "$option")
	if [[ $item == *=* ]]; then
		key=${item%%=*}
		head+=$key=
		item=${item#*=}
		case $key in
		file | path | script | downscript | tftp | romfile | kernel | initrd | firmware | bootfile | \
			*filename | key-file)
			_cowvm_files "$head" "$item" ;;
		driver) _cowvm_reply "$head" "$item" $(_cowvm_devices "$cowvm") ;;
		*) _cowvm_reply "$head" "$item" $(_cowvm_values "$usage" "$key") ;;
		esac
		return
	fi
	case $option in
	device)
		if [[ $head ]]; then
			_cowvm_reply "$head" "$item" id= $("$cowvm" -device "$first,help" 2>/dev/null |
				sed -n 's/^  \([^=]*=\).*/\1/p')
		else
			_cowvm_reply "" "$item" help $(_cowvm_devices "$cowvm")
		fi
		return ;;
	netdev | nic | net)
		if [[ ! $head ]]; then
			_cowvm_reply "" "$item" none $("$cowvm" -netdev help 2>/dev/null | sed 1d)
			[[ $option == net ]] && _cowvm_reply "" "$item" nic
			return
		fi
		usage+=$(_cowvm_usage "$cowvm" netdev) ;;
	object)
		if [[ $head ]]; then
			_cowvm_reply "$head" "$item" id= $("$cowvm" -object "$first,help" 2>/dev/null |
				sed -n 's/^  \([^=]*=\).*/\1/p')
		else
			_cowvm_reply "" "$item" help $("$cowvm" -object help 2>/dev/null | sed 1d)
		fi
		return ;;
	machine | M | cpu | accel)
		[[ $head ]] || _cowvm_reply "" "$item" help $("$cowvm" "-$option" help 2>/dev/null |
			sed -n '1d; /:/d; s/^x86 //; s/ .*//; p') ;;
	esac
	_cowvm_reply "$head" "$item" $(_cowvm_keys "$usage")
}

_cowvm() {
	local cowvm=$1 line=${COMP_LINE:0:COMP_POINT} cur prev option
	local -a words
	# The words as the shell will see them; those of readline break at '=' and ':'.
	read -ra words <<<"$line"
	[[ $line == *[[:space:]] ]] && words+=("")
	cur=${words[-1]}
	prev=${words[-2]}
	COMPREPLY=()
	option=${prev#-}
	option=${option#-}
	[[ $prev == -* && ${#words[@]} -gt 2 ]] && ! _cowvm_is_flag "$cowvm" "$option" || option=
	case $option in
	hd[abcd] | cdrom | bios | kernel | initrd | pidfile | D | readconfig | L | mem-path)
		_cowvm_files "" "$cur" ;;
	vga | parallel) _cowvm_reply "" "$cur" $(_cowvm_usage "$cowvm" "$option" |
		sed 's/^-[a-z]* \[\{0,1\}\([a-z|]*\).*/\1/; s/|/ /g') ;;
	display) _cowvm_reply "" "$cur" none vnc= ;;
	trace) _cowvm_reply "" "$cur" help $("$cowvm" -trace help 2>/dev/null) ;;
	serial | monitor | debugcon)
		_cowvm_reply "" "$cur" stdio mon:stdio file: pty unix: null none chardev: ;;
	"")
		if [[ $cur == -* ]]; then
			_cowvm_reply "" "$cur" $("$cowvm" -help 2>/dev/null | sed -n 's/^\(-[^ ]*\).*/\1/p' |
				sort -u)
		else
			_cowvm_files "" "$cur"
		fi ;;
	append | uuid | echr | loadvm) ;;
	*) _cowvm_list "$cowvm" "$option" "$cur" ;;
	esac
}

complete -F _cowvm cowvm
