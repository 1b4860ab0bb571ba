#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The command from outside: what it stores, loads, lists and tells, what it leaves, and its exit status. TAP.
#
# Usage: test_cli.sh KVKEEP

# shellcheck disable=SC2317  # tap() calls the functions

set -euo pipefail

kvkeep=$(realpath "$1")
# shellcheck source=tests/integration/cli.sh
. "$(dirname "$(realpath "$0")")/cli.sh"

stores_and_loads()
{
	head -c 3000000 /dev/urandom >in
	gives 0 "$kvkeep" put store "$key" in --meta 'hello there' --depth 3 --parent llama@00000000@0@01
	says out stored
	gives 0 "$kvkeep" get store "$key" back
	cmp in back
	[ "$(stat -c %a back)" = 600 ]
	gives 0 "$kvkeep" get store "$key"
	cmp in out
	gives 0 "$kvkeep" get store "$key" -
	cmp in out
	gives 0 "$kvkeep" put store "$key" in
	says out 'present already'
}

takes_standard_input()
{
	"$kvkeep" put store second <in
	"$kvkeep" put store third - <in
	gives 0 "$kvkeep" get store second
	cmp in out
	gives 0 "$kvkeep" get store third
	cmp in out
	: | "$kvkeep" put store nothing
	gives 0 "$kvkeep" get store nothing
	[ ! -s out ]
}

loads_ranges()
{
	gives 0 "$kvkeep" get store "$key" --offset 1000001 --length 777
	cmp out <(tail -c +1000002 in | head -c 777)
	gives 0 "$kvkeep" get store "$key" --offset 2999999
	cmp out <(tail -c 1 in)
}

takes_keys_of_any_bytes()
{
	gives 0 "$kvkeep" put store hex:00ff0a41 in
	gives 0 "$kvkeep" has store hex:00ff0a41
	gives 0 "$kvkeep" put store hex:61 in
	gives 0 "$kvkeep" has store a
	gives 0 "$kvkeep" ls store --prefix hex:00ff
	says out hex:00ff0a41
	gives 0 "$kvkeep" rm store hex:00ff0a41 a
}

tells_what_is_there()
{
	gives 0 "$kvkeep" has store "$key" second
	gives 1 "$kvkeep" has store "$key" nobody
	says out 'absent'
	gives 1 "$kvkeep" has --json store "$key" nobody
	json 'v[0]["present"] and not v[1]["present"] and v[0]["object_bytes"] == 3000000'
}

removes()
{
	gives 0 "$kvkeep" rm store third nothing
	gives 1 "$kvkeep" rm store third
	gives 1 "$kvkeep" get store third
	says err 'not found'
}

keeps_files_when_there_is_nothing()
{
	echo precious >kept
	gives 1 "$kvkeep" get store nobody kept
	says err 'nobody: not found'
	[ "$(cat kept)" = precious ]
	gives 1 "$kvkeep" get store nobody fresh
	[ ! -e fresh ]
	gives 0 "$kvkeep" get store "$key" kept
	cmp in kept
	[ -z "$(find . -maxdepth 1 -name 'kept?*')" ]
}

writes_what_is_no_file_in_place()
{
	mkfifo pipe
	cat pipe >through &
	gives 0 "$kvkeep" get store "$key" pipe
	wait
	cmp in through
	[ -p pipe ]
	ln -s target link
	echo old >target
	chmod 640 target
	gives 0 "$kvkeep" get store "$key" link
	[ -L link ]
	cmp in target
	[ "$(stat -c %a target)" = 640 ]
}

damage_is_told_and_nothing_written()
{
	gives 0 "$kvkeep" put bad "$key" in
	flip_byte "$(object_file bad "$key")" 1234567
	gives 1 "$kvkeep" get bad "$key" spoilt
	says err damaged
	[ "$(wc -l <err)" = 1 ]
	[ ! -e spoilt ]
}

lists()
{
	for i in 1 2 3 4 5; do
		echo "$i" | "$kvkeep" put list "m@00000000@0@0$i@t$((i % 2))" >/dev/null
	done
	echo x | "$kvkeep" put list 'other@00000000@0@01' >/dev/null
	gives 0 "$kvkeep" ls list
	says out 'm@00000000@0@03@t1'
	says out '6 objects'
	gives 0 "$kvkeep" ls --json list --model m --tenant t1
	json 'sorted(o["key"][15:17] for o in v["objects"]) == ["1@", "3@", "5@"] or [o["key"] for o in v["objects"]]'
	json 'len(v["objects"]) == 3 and all(o["tenant"] == "t1" and o["model"] == "m" for o in v["objects"])'
	gives 0 "$kvkeep" ls --json list --prefix other
	json 'len(v["objects"]) == 1 and v["objects"][0]["bytes"] == 2 and v["cursor"] is None'
	gives 0 "$kvkeep" ls --json list --older 1h
	json 'v["objects"] == []'
	gives 0 "$kvkeep" ls --json list --older 0s
	json 'len(v["objects"]) == 6'
	gives 0 "$kvkeep" ls --long list
	says out NAMESPACE
}

pages_are_whole()
{
	local cursor='' seen=0 count

	while :; do
		gives 0 "$kvkeep" ls --json list --limit 2 ${cursor:+--cursor "$cursor"}
		count=$(python3 -c 'import json; print(len(json.load(open("out"))["objects"]))')
		seen=$((seen + count))
		[ "$count" -le 2 ]
		cursor=$(python3 -c 'import json; print(json.load(open("out"))["cursor"] or "")')
		[ -n "$cursor" ] || break
	done
	[ "$seen" = 6 ]
}

# The same key in two namespaces: each store shows its own.
shows_its_own()
{
	local spec='{"backend_params":{"file_path":"twice"},"namespace":{"model":"n"}}'

	echo one | "$kvkeep" put twice k >/dev/null
	echo three | "$kvkeep" put "$spec" k >/dev/null
	gives 0 "$kvkeep" stat --json twice k
	json 'v["bytes"] == 4 and v["namespace"] is None'
	gives 0 "$kvkeep" stat --json "$spec" k
	json 'v["bytes"] == 6 and v["namespace"]'
}

shows_all_about_one()
{
	gives 0 "$kvkeep" stat --json store "$key"
	json 'v["bytes"] == 3000000 and v["meta"] == "hello there" and v["depth"] == 3 and v["tenant"] == "acme"'
	json 'v["model"] == "llama" and v["parent"] and v["namespace"] is None and v["state"] == "present"'
	gives 0 "$kvkeep" stat store "$key"
	says out 'hello there'
	gives 1 "$kvkeep" stat store nobody
}

shows_what_a_store_holds()
{
	gives 0 "$kvkeep" stat --json list
	json 'v["medium"]["objects"] == 6 and v["status"]["healthy"] and v["medium"]["damaged"] == 0'
	json '{t["name"]: t["objects"] for t in v["tenants"]} == {"t0": 2, "t1": 3, "": 1}'
	json '{m["name"]: m["objects"] for m in v["models"]} == {"m": 5, "other": 1}'
	gives 0 "$kvkeep" stat list
	says out '6 objects'
}

verifies()
{
	gives 0 "$kvkeep" verify list
	says out '6 objects read'
	flip_byte "$(object_file list 'm@00000000@0@02@t0')" 1
	truncate -s -1 "$(object_file list 'other@00000000@0@01')"
	gives 1 "$kvkeep" verify list
	says out 'm@00000000@0@02@t0'
	says out '2 bad'
	gives 1 "$kvkeep" verify --json list
	json 'v["complete"] and v["checked"] == 6 and len(v["bad"]) == 2 and all("damaged" in b["reason"] for b in v["bad"])'
	[ -z "$(ls "$XDG_STATE_HOME/kvkeep" 2>/dev/null)" ]
}

# 200 objects at a rate that would take a minute; what was checked before the signal is not checked again.
verify_goes_on_after_a_signal()
{
	local first pause

	gives 0 "$kvkeep" replay many 'chat:users=20,turns=10,system=512,prompt=512,reply=512' --bytes-per-token 64
	# On a busy machine it may take its time to begin.
	for pause in 2.5 5 10 20; do
		"$kvkeep" verify many --rate 3MB --json >out 2>err &
		sleep $pause
		kill -INT $!
		if wait $!; then
			return 1
		fi
		json 'v["checked"] > 0' >/dev/null 2>&1 && break
	done
	says err '--resume'
	json 'not v["complete"] and v["checked"] > 0 and not v["bad"]'
	first=$(python3 -c 'import json; print(json.load(open("out"))["checked"])')
	[ -n "$(ls "$XDG_STATE_HOME/kvkeep")" ]
	gives 0 "$kvkeep" verify many --resume --json
	json "v['complete'] and v['checked'] > $first"
	gives 0 "$kvkeep" stat many --json
	mv out stat
	gives 0 "$kvkeep" verify many --json
	json 'v["checked"] == json.load(open("stat"))["medium"]["objects"]'
}

doctors()
{
	gives 0 "$kvkeep" doctor --json
	json 'all(f["part"] == "machine" for f in v["findings"])'
	json '{"kernel", "io_uring", "open files", "locked memory", "clock"} <= {f["name"] for f in v["findings"]}'
	gives 0 "$kvkeep" doctor --json store
	json '{"file system", "free space", "free inodes", "direct I/O", "publishing", "engine"} <= {f["name"] for f in v["findings"]}'
	mkdir -m 700 empty
	gives 0 "$kvkeep" doctor empty
	[ -z "$(ls -A empty)" ]
	gives 0 "$kvkeep" doctor not/there
	[ ! -e not ]
	mkdir -m 777 open
	chmod 777 open
	gives 1 "$kvkeep" doctor open
	says out 'chmod 0700'
}

compares_namespaces()
{
	local one two

	echo x | "$kvkeep" put '{"backend_params":{"file_path":"spaces"},"namespace":{"model":"a","layers":[1,2]}}' k
	echo x | "$kvkeep" put '{"backend_params":{"file_path":"spaces"},"namespace":{"model":"b","layers":[1,3]}}' k
	gives 0 "$kvkeep" namespace spaces --json
	json 'len(v) == 2'
	one=$(python3 -c 'import json; print([n["digest"] for n in json.load(open("out")) if n["manifest"]["model"] == "a"][0])')
	two=$(python3 -c 'import json; print([n["digest"] for n in json.load(open("out")) if n["manifest"]["model"] == "b"][0])')
	gives 0 "$kvkeep" namespace spaces show "${one:0:12}"
	json 'v == {"model": "a", "layers": [1, 2]}'
	gives 0 "$kvkeep" namespace spaces diff "$one" "$two"
	says out 'model: "a" -> "b"'
	says out 'layers[1]: 2 -> 3'
	echo '{"model":"a","layers":[1,2]}' >manifest
	gives 0 "$kvkeep" namespace spaces diff @manifest "$one"
	says out 'the same'
	gives 1 "$kvkeep" namespace spaces show abcd
	gives 2 "$kvkeep" namespace spaces show x
}

takes_stores_as_json_and_from_files()
{
	echo '{"backend_params": {"file_path": "store"}}' >spec
	gives 0 "$kvkeep" has @spec "$key"
	gives 0 "$kvkeep" has '{"backend_params": {"file_path": "store", "use_direct_io": true}}' "$key"
	gives 2 "$kvkeep" has '{"backend_params": {"file_path": "store", "frob": 1}}' "$key"
	says err 'kvkeep: backend_params.frob: '
	gives 2 "$kvkeep" has '{"backend_params": ' "$key"
	says err 'line 1'
	gives 1 "$kvkeep" has @nowhere "$key"
}

readers_make_nothing()
{
	local verb

	for verb in get has rm stat; do
		gives 1 "$kvkeep" "$verb" absent k
	done
	for verb in ls verify namespace df cap quota fsck; do
		gives 1 "$kvkeep" "$verb" absent
		says err absent
	done
	gives 1 "$kvkeep" evict absent 10%
	gives 1 "$kvkeep" purge absent --older 0s
	[ ! -e absent ]
}

refuses_bad_usage()
{
	gives 2 "$kvkeep"
	gives 2 "$kvkeep" frobnicate
	gives 2 "$kvkeep" put store
	gives 2 "$kvkeep" put store k in more
	gives 2 "$kvkeep" put store hex:0 in
	gives 2 "$kvkeep" put store k in --frob
	gives 2 "$kvkeep" put store "$(head -c 1025 /dev/zero | tr '\0' a)" in
	gives 2 "$kvkeep" get store
	gives 2 "$kvkeep" get store k --length 0
	gives 2 "$kvkeep" has store
	gives 2 "$kvkeep" ls store more
	gives 2 "$kvkeep" ls store --older yesterday
	gives 2 "$kvkeep" verify store --rate fast
	gives 2 "$kvkeep" replay store
	gives 2 "$kvkeep" replay store chat:users=1
	gives 2 "$kvkeep" replay store chat:users=1,turns=2 --kill-at 2
	gives 2 "$kvkeep" replay store chat:users=1,turns=4 --kill-at 2 --kill-at 1
	gives 2 "$kvkeep" replay '{"backend":"RAM"}' chat:users=1,turns=4 --kill-at 2
	gives 2 "$kvkeep" bench store --bytes 0
	gives 2 "$kvkeep" df store more
	gives 2 "$kvkeep" cap store lots
	gives 2 "$kvkeep" cap store 65535
	gives 2 "$kvkeep" quota store tenant 1 2
	gives 2 "$kvkeep" quota store tenant much
	gives 2 "$kvkeep" quota store --default tenant 1
	gives 2 "$kvkeep" evict store
	gives 2 "$kvkeep" evict store 101%
	gives 2 "$kvkeep" evict store half
	gives 2 "$kvkeep" purge store
	gives 2 "$kvkeep" purge store --tenant ''
	gives 2 "$kvkeep" purge store --namespace abc
	gives 2 "$kvkeep" fsck store --frob
	gives 2 "$kvkeep" help frobnicate
	gives 1 "$kvkeep" put store k nowhere
}

helps()
{
	local verb

	gives 0 "$kvkeep" --version
	says out 'kvkeep 0.'
	gives 0 "$kvkeep" help
	for verb in put get has rm ls stat verify df cap quota evict purge fsck doctor namespace replay bench; do
		says out "  $verb "
		gives 0 "$kvkeep" help "$verb"
		says out "usage: kvkeep $verb"
		says out --json
		gives 0 "$kvkeep" "$verb" --help
		gives 0 "$kvkeep" help
	done
}

full_disk_of_output_is_an_error()
{
	[ -e /dev/full ]
	local status=0
	"$kvkeep" ls store >/dev/full 2>err || status=$?
	[ "$status" = 1 ]
	status=0
	"$kvkeep" get store "$key" >/dev/full 2>err || status=$?
	[ "$status" = 1 ]
}

tap 'put stores, get loads and proves' stores_and_loads
tap 'put takes standard input, and nothing at all' takes_standard_input
tap 'get loads ranges' loads_ranges
tap 'keys may be any bytes' takes_keys_of_any_bytes
tap 'has tells what is there' tells_what_is_there
tap 'rm removes, once' removes
tap 'get leaves files alone when there is nothing' keeps_files_when_there_is_nothing
tap 'get writes pipes in place and follows links' writes_what_is_no_file_in_place
tap 'a damaged object is told in one line and nothing written' damage_is_told_and_nothing_written
tap 'ls lists and filters' lists
tap 'pages of ls hold each object once' pages_are_whole
tap 'stat shows all about an object' shows_all_about_one
tap 'stat shows the object of its own namespace' shows_its_own
tap 'stat shows what a store holds' shows_what_a_store_holds
tap 'verify finds each damaged object' verifies
tap 'verify goes on after a signal' verify_goes_on_after_a_signal
tap 'doctor looks at machine and directory, and leaves nothing' doctors
tap 'namespace lists, shows and compares' compares_namespaces
tap 'stores are directories, JSON and @files' takes_stores_as_json_and_from_files
tap 'verbs that read make no store' readers_make_nothing
tap 'bad usage ends with 2' refuses_bad_usage
tap 'help tells of every verb' helps
tap 'output that cannot be written is an error' full_disk_of_output_is_an_error
echo "1..$number"
exit $failed
