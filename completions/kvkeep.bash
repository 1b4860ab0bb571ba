# SPDX-License-Identifier: Apache-2.0
# Completion of kvkeep for bash.

_kvkeep()
{
	local verbs='put get has rm ls stat verify df cap quota evict purge fsck doctor namespace replay simulate bench help'
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} verb=${COMP_WORDS[1]}
	local options='--json --help' place=0 i

	COMPREPLY=()
	if [ "$COMP_CWORD" -eq 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W "$verbs --version" -- "$current")
		return
	fi
	case $verb in
	put) options+=' --parent --meta --depth --durability --direct' ;;
	get) options+=' --offset --length --direct' ;;
	has | rm) options+=' --quiet' ;;
	ls) options+=' --model --tenant --prefix --older --long --limit --cursor' ;;
	df) options+=' --quick' ;;
	quota) options+=' --default' ;;
	evict) options+=' --policy' ;;
	purge) options+=' --tenant --model --namespace --older --dry-run' ;;
	fsck) options+=' --repair' ;;
	verify) options+=' --rate --resume --state' ;;
	replay)
		options+=' --bytes-per-token --capacity --concurrency --requests --kill-at --seed --memory --held --direct'
		options+=' --durability'
		;;
	simulate) options+=' --capacity --policy --bytes-per-token --requests --seed' ;;
	bench) options+=' --bytes --inflight --seconds --total --direct --held --durability' ;;
	help)
		mapfile -t COMPREPLY < <(compgen -W "${verbs% help}" -- "$current")
		return
		;;
	esac
	case $previous in
	--durability)
		mapfile -t COMPREPLY < <(compgen -W 'none batch object' -- "$current")
		return
		;;
	--policy)
		mapfile -t COMPREPLY < <(compgen -W 'LRU S3FIFO ARC IsolatedLRU' -- "$current")
		return
		;;
	--state)
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
		;;
	--parent | --meta | --depth | --offset | --length | --model | --tenant | --namespace | --prefix | --older | --limit | --cursor | \
		--rate | --bytes-per-token | --capacity | --concurrency | --requests | --kill-at | --seed | --memory | \
		--bytes | --inflight | --seconds | --total)
		return
		;;
	esac
	if [[ $current == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
		return
	fi
	for ((i = 2; i < COMP_CWORD; i++)); do
		[[ ${COMP_WORDS[i]} == -* ]] || place=$((place + 1))
	done
	compopt -o filenames 2>/dev/null
	if [ $place -eq 0 ]; then
		mapfile -t COMPREPLY < <(compgen -d -- "$current")
	elif [ "$verb" = namespace ] && [ $place -eq 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W 'show diff' -- "$current")
	elif { [ "$verb" = cap ] && [ $place -eq 1 ]; } || { [ "$verb" = quota ] && [ $place -eq 2 ]; }; then
		mapfile -t COMPREPLY < <(compgen -W 'none' -- "$current")
	elif [ "$verb" = put ] || [ "$verb" = get ] || [ "$verb" = replay ]; then
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
	fi
}

complete -F _kvkeep kvkeep
