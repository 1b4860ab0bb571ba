#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The command from outside: every verb on a store of its own, what it prints, what it leaves, and its exit status. TAP.
#
# Usage: test_cli.sh KVKEEP SOURCE

# shellcheck disable=SC2317  # tap() calls the functions

set -euo pipefail

kvkeep=$(realpath "$1")
source=$(realpath "$2")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export XDG_STATE_HOME=$folder/state

number=0
failed=0

# tap NAME COMMAND...: not as a condition, where the shell would go on after a command that failed.
tap()
{
	local name=$1 status=0

	shift
	number=$((number + 1))
	"$@" >log 2>&1 &
	wait $! || status=$?
	if [ $status -eq 0 ]; then
		echo "ok $number - $name"
	else
		echo "not ok $number - $name"
		sed 's/^/# /' log
		failed=1
	fi
}

# gives STATUS COMMAND...: the command ends with exactly this status; its output is in `out` and `err`.
gives()
{
	local wanted=$1 status=0

	shift
	"$@" >out 2>err || status=$?
	if [ "$status" -ne "$wanted" ]; then
		echo "$* ended with $status, wanted $wanted"
		cat out err
		return 1
	fi
}

# says FILE TEXT: a line of it contains the text.
says()
{
	if ! grep -qF -- "$2" "$1"; then
		echo "'$2' is not in $1:"
		cat "$1"
		return 1
	fi
}

# json EXPRESSION: holds for `out` as Python's value v.
json()
{
	python3 - "$1" <<'END'
import json, sys
v = json.load(open('out'))
if not eval(sys.argv[1]):
    sys.exit(f'{sys.argv[1]} does not hold for {v}')
END
}

# The file of the only object with this key.
object_file()
{
	"$kvkeep" stat --json "$1" "$2" | python3 -c 'import json, sys; print(sys.argv[1] + "/" + json.load(sys.stdin)["name"])' "$1"
}

flip_byte()
{
	python3 - "$1" "$2" <<'END'
import sys
with open(sys.argv[1], 'r+b') as file:
    file.seek(int(sys.argv[2]))
    byte = file.read(1)[0]
    file.seek(int(sys.argv[2]))
    file.write(bytes([byte ^ 1]))
END
}

key=llama@00000000@0@0123456789abcdef@acme

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
	local first

	gives 0 "$kvkeep" replay many 'chat:users=20,turns=10,system=512,prompt=512,reply=512' --bytes-per-token 64
	"$kvkeep" verify many --rate 3MB --json >out 2>err &
	sleep 2.5
	kill -INT $!
	if wait $!; then
		return 1
	fi
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

# A store with four tenants, two models and two namespaces, and a file that is nobody's.
fill_room()
{
	local i

	rm -rf room
	head -c 100000 /dev/urandom >block
	for i in 1 2 3 4 5 6 7 8; do
		"$kvkeep" put room "m@00000000@0@0$i@t$((i % 4))" block >/dev/null
	done
	"$kvkeep" put room 'other@00000000@0@09' block >/dev/null
	"$kvkeep" put '{"backend_params":{"file_path":"room"},"namespace":{"model":"n"}}' 'm@00000000@0@01@t1' block >/dev/null
	echo precious >room/README
}

# What one object of fill_room() costs.
charge=106496

shows_what_is_used()
{
	fill_room
	gives 0 "$kvkeep" df room --json
	json "v['used_bytes'] == 10 * $charge and v['cap_bytes'] == 0 and v['used_fraction'] == -1"
	json 'v["used_bytes"] == v["medium"]["stored_bytes"] and v["processes"] == 1'
	json 'v["medium_total_bytes"] >= v["medium_free_bytes"] > v["floor_bytes"] > 0'
	json '{t["name"]: (t["objects"], t["quota_bytes"]) for t in v["tenants"]} == {"t0": (2, None), "t1": (3, None), "t2": (2, None), "t3": (2, None), "": (1, None)}'
	json '{m["name"]: m["objects"] for m in v["models"]} == {"m": 9, "other": 1}'
	json 'v["rows"] is None or [r["self"] for r in v["rows"]] == [True]'
	gives 0 "$kvkeep" df room --json --quick
	json "v['used_bytes'] == 10 * $charge and v['tenants'] is None and v['medium'] is None"
	gives 0 "$kvkeep" df room
	says out 'no cap'
	says out 't3'
	says out 'other'
}

# While another process has the store open: it is told at once, and its next put is measured by it.
changes_the_cap()
{
	fill_room
	gives 0 "$kvkeep" cap room
	says out 'no cap'
	gives 0 "$kvkeep" cap room 2MiB --json
	json "v['cap_bytes'] == 2 << 20 and v['changed'] and v['used_bytes'] == 10 * $charge"
	gives 0 "$kvkeep" cap room --json
	json 'v["cap_bytes"] == 2 << 20 and not v["changed"]'
	gives 0 "$kvkeep" df room
	says out 'of 2.0 MiB'
	head -c 1500000 /dev/urandom >large
	gives 1 "$kvkeep" put room large large
	says err 'no room'
	gives 0 "$kvkeep" cap room none
	gives 0 "$kvkeep" put room large large
	gives 0 "$kvkeep" cap room 1MiB
	says out 'more than the cap is there'
	gives 1 "$kvkeep" put room another block
}

keeps_quotas()
{
	fill_room
	gives 0 "$kvkeep" quota room t1 1GiB
	gives 0 "$kvkeep" quota room --default 150K
	gives 0 "$kvkeep" quota room nobody 7
	gives 0 "$kvkeep" quota room t2 none --json
	json 'v == {"tenant": "t2", "quota_bytes": None}'
	gives 0 "$kvkeep" quota room --json
	json 'v["default_quota_bytes"] == 150 * 1024'
	json '{t["name"]: t["quota_bytes"] for t in v["tenants"]} == {"t0": 153600, "t1": 1 << 30, "t2": None, "t3": 153600, "": 153600, "nobody": 7}'
	gives 0 "$kvkeep" quota room
	says out 'over its quota'
	gives 0 "$kvkeep" quota room t1
	says out '1.0 GiB'
	gives 1 "$kvkeep" quota room stranger
	gives 0 "$kvkeep" quota room --default none
	gives 0 "$kvkeep" quota room --default --json
	json 'v == {"default_quota_bytes": None, "tenants": []}'
	gives 1 "$kvkeep" quota room "$(printf '\377')" 1
	says err UTF-8
}

purges()
{
	local space

	fill_room
	gives 0 "$kvkeep" purge room --tenant t1 --dry-run --json
	json "v['dry_run'] and v['found'] == 3 and v['found_bytes'] == 3 * $charge and v['removed'] == 0"
	gives 0 "$kvkeep" purge room --tenant t1
	says out '3 objects'
	gives 0 "$kvkeep" ls room --json
	json 'len(v["objects"]) == 7 and all(o["tenant"] != "t1" for o in v["objects"])'
	gives 0 "$kvkeep" purge room --tenant t1 --json
	json 'v["found"] == 0'
	gives 0 "$kvkeep" purge room --tenant t2 --model other --json
	json 'v["found"] == 0'
	gives 0 "$kvkeep" purge room --model other --json
	json 'v["removed"] == 1 and v["failed"] == v["gone"] == 0'
	gives 0 "$kvkeep" purge room --older 1h --json
	json 'v["found"] == 0'
	gives 0 "$kvkeep" purge room --older 0s --json
	json 'v["removed"] == 6'
	[ "$(cat room/README)" = precious ]
	fill_room
	space=$("$kvkeep" namespace room --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["digest"])')
	gives 0 "$kvkeep" purge room --namespace "${space:0:8}" --json
	json 'v["removed"] == 1'
	gives 0 "$kvkeep" purge room --namespace none --json
	json 'v["removed"] == 9'
	gives 0 "$kvkeep" fsck room
}

# An object that cannot be opened is as old as its file; one whose file tells nothing is of no age, and not taken for old.
purges_nothing_of_unknown_age()
{
	local open='{"backend_params":{"file_path":"room"},"fault":[{"do":"fail","ops":["open"],"error":"EIO","chance":1}]}'
	local both='{"backend_params":{"file_path":"room"},"fault":[{"do":"fail","ops":["open","stat_name"],"error":"EIO","chance":1}]}'

	fill_room
	gives 0 "$kvkeep" purge "$open" --older 1d --json
	json 'v["found"] == v["removed"] == v["failed"] == 0'
	touch -d '2 days ago' "$(object_file room 'm@00000000@0@01@t1')"
	gives 0 "$kvkeep" purge "$open" --older 1d --dry-run --json
	json "v['found'] == 1 and v['found_bytes'] == $charge"
	gives 1 "$kvkeep" purge "$both" --older 1d --json
	json 'v["found"] == v["removed"] == 0 and v["failed"] == 10'
	says err 'how old'
	gives 1 "$kvkeep" purge "$both" --older 1d --dry-run
	[ "$(objects_in room)" -eq 10 ]
	gives 0 "$kvkeep" ls "$both" --older 1d --json
	json 'v["objects"] == []'
}

purges_directories_of_lmcache()
{
	local spec='{"backend_params":{"file_path":"theirs"},"naming":"lmcache"}'

	"$kvkeep" put "$spec" 'm@00000000@0@ab@t1' block >/dev/null
	"$kvkeep" put "$spec" 'm@00000000@0@cd@t2' block >/dev/null
	head -c 4096 block >theirs/notes.txt
	gives 0 "$kvkeep" purge "$spec" --tenant t1 --json
	json 'v["removed"] == 1'
	gives 0 "$kvkeep" fsck "$spec" --json
	json "v['sound'] and v['objects'] == 1 and v['object_bytes'] == $charge"
	gives 0 "$kvkeep" purge "$spec" --older 0s
	[ -e theirs/notes.txt ]
}

evicts_the_coldest()
{
	fill_room
	gives 0 "$kvkeep" get room m@00000000@0@01@t1
	gives 0 "$kvkeep" get room m@00000000@0@03@t3
	gives 0 "$kvkeep" evict room 20% --json
	json "v['wanted_bytes'] == 2 * $charge and v['evicted_bytes'] == 2 * $charge and v['objects'] == 2"
	gives 0 "$kvkeep" evict room 200K
	says out '2 objects'
	gives 0 "$kvkeep" ls room --json
	json 'sorted(o["key"] for o in v["objects"] if o["namespace"] is None) == ["m@00000000@0@01@t1", "m@00000000@0@03@t3", "m@00000000@0@07@t3", "m@00000000@0@08@t0", "other@00000000@0@09"]'
	gives 1 "$kvkeep" evict room 1G
	gives 1 "$kvkeep" evict '{"backend_params":{"file_path":"room"},"eviction":{"eviction_policy":"noop"}}' 1M
	says err '--policy LRU'
	gives 2 "$kvkeep" evict room 1M --policy FIFO
}

# A file that nobody charged, one that is gone, and what a process that was killed had leased.
finds_and_repairs_drift()
{
	local file

	fill_room
	gives 0 "$kvkeep" fsck room --json
	json "v['sound'] and v['drift_bytes'] == 0 and v['objects'] == 10 and v['disk_bytes'] == v['used_bytes'] == 10 * $charge"
	gives 0 "$kvkeep" fsck room
	says out 'they agree'
	file=$(object_file room 'other@00000000@0@09')
	rm "$file"
	# As often as one looks.
	gives 1 "$kvkeep" fsck room
	says err 'is charged that is not there'
	gives 1 "$kvkeep" fsck room --json
	json "not v['sound'] and v['drift_bytes'] == $charge and v['used_bytes'] == 10 * $charge"
	gives 0 "$kvkeep" fsck room --repair --json
	json "v['sound'] and v['drift_bytes'] == 0 and v['first_drift_bytes'] == $charge and v['used_bytes'] == 9 * $charge"
	cp -p "$(object_file room 'm@00000000@0@08@t0')" "$file"
	gives 1 "$kvkeep" fsck room
	says err 'the cap may be exceeded'
	gives 0 "$kvkeep" fsck room --repair --json
	json "v['sound'] and v['drift_bytes'] == 0 and v['first_drift_bytes'] == -$charge and v['used_bytes'] == 10 * $charge"
	gives 0 "$kvkeep" fsck room
	gives 1 "$kvkeep" fsck '{"backend":"RAM"}'
}

# While another process stores and loads: both are seen, what is there stays within what is charged and leased, a cap is
# told to it, and who is not the keeper does not guess what is cold.
sees_other_processes()
{
	local other tries

	fill_room
	"$kvkeep" bench room --bytes 64KiB --inflight 2 --seconds 60 --total 64MiB >bench.out 2>&1 &
	other=$!
	for tries in $(seq 100); do
		gives 0 "$kvkeep" df room --quick --json
		json 'v["processes"] == 2 and v["keeper"] == "other"' >/dev/null 2>&1 && break
		[ "$tries" -lt 100 ]
	done
	json 'v["keeper"] == "other" and v["scan"]["phase"] == "elsewhere"'
	json 'len(v["rows"]) == 2 and sum(r["self"] for r in v["rows"]) == 1 and all(r["alive"] for r in v["rows"])'
	gives 1 "$kvkeep" evict room 10%
	says err 'kvkeep cap'
	gives 0 "$kvkeep" cap room 2GiB
	gives 1 "$kvkeep" put '{"backend_params":{"file_path":"room","max_capacity_gb":1}}' x block
	says err '2147483648'
	kill -INT $other
	wait $other || true
	gives 0 "$kvkeep" fsck room --json
	json 'v["sound"] and v["at_rest"] and v["objects"] == 10'
	gives 0 "$kvkeep" df room --quick --json
	json 'v["processes"] == 1 and v["cap_bytes"] == 2 << 30'
}

# How many objects are in a folder's store, counted without kvkeep.
objects_in()
{
	find "$1" -path "$1/.kvkeep" -prune -o -type f ! -name README -print | wc -l
}

# A configuration may wish for another cap, no persistence and a low watermark: verbs other than an engine's act on none of it.
leaves_what_it_was_not_told_to_change()
{
	local spec='{"backend_params":{"file_path":"room","max_capacity_gb":2},"persist_enabled":false,"durability":"object"}'
	local full='{"backend_params":{"file_path":"room"},"eviction":{"eviction_policy":"LRU","trigger_watermark":0.1}}'
	local key='m@00000000@0@01@t1' sum

	fill_room
	gives 0 "$kvkeep" cap room 2MiB
	sum=$(sha256sum room/.kvkeep/superblock)
	gives 0 "$kvkeep" has "$spec" "$key"
	gives 0 "$kvkeep" get "$spec" "$key"
	gives 0 "$kvkeep" ls "$spec"
	gives 0 "$kvkeep" stat "$spec"
	gives 0 "$kvkeep" verify "$spec"
	gives 0 "$kvkeep" df "$spec"
	gives 0 "$kvkeep" namespace "$spec"
	"$kvkeep" doctor "$spec" >out || [ $? -eq 1 ]
	gives 0 "$kvkeep" cap "$spec" --json
	json 'v["cap_bytes"] == 2 << 20'
	gives 0 "$kvkeep" quota "$spec"
	gives 0 "$kvkeep" quota "$spec" t9 1GiB
	gives 0 "$kvkeep" fsck "$spec"
	gives 0 "$kvkeep" fsck "$spec" --repair
	gives 0 "$kvkeep" purge "$spec" --older 0s --dry-run
	says out '10 objects'
	gives 0 "$kvkeep" purge "$spec" --older 1d
	[ "$(objects_in room)" -eq 10 ]
	[ "$(sha256sum room/.kvkeep/superblock)" = "$sum" ]
	# Whoever counts anew knows what there is to evict.
	gives 0 "$kvkeep" fsck "$full" --repair
	[ "$(objects_in room)" -eq 10 ]
	gives 0 "$kvkeep" rm "$spec" "$key"
	gives 0 "$kvkeep" evict "$full" 1
	gives 0 "$kvkeep" put "$full" more block
	[ "$(objects_in room)" -eq 9 ]
	gives 0 "$kvkeep" cap "$spec" 3MiB
	gives 0 "$kvkeep" cap room --json
	json 'v["cap_bytes"] == 3 << 20'
	# Whoever says it of a put means it.
	gives 0 "$kvkeep" put "$spec" last block
	[ "$(objects_in room)" -eq 0 ]
}

# An engine whose objects were to go with it is killed: what looks at them then leaves them.
looks_at_what_was_not_to_persist()
{
	local spec='{"backend_params":{"file_path":"killed"},"persist_enabled":false}'
	local other count verb tries

	head -c 100000 /dev/urandom >block
	"$kvkeep" bench "$spec" --bytes 64KiB --inflight 2 --seconds 60 --total 2MiB >bench.out 2>&1 &
	other=$!
	for tries in $(seq 100); do
		[ -d killed ] && [ "$(objects_in killed)" -ge 32 ] && break
		[ "$tries" -lt 100 ]
		sleep 0.1
	done
	kill -KILL $other
	wait $other || true
	count=$(objects_in killed)
	for verb in ls df stat verify cap quota; do
		gives 0 "$kvkeep" "$verb" killed
		[ "$(objects_in killed)" -eq "$count" ]
	done
	gives 0 "$kvkeep" fsck killed --repair
	gives 0 "$kvkeep" put killed more block
	gives 0 "$kvkeep" has killed more
	[ "$(objects_in killed)" -eq $((count + 1)) ]
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

# ---- replay ----

replay_agrees_with_the_model()
{
	gives 0 "$kvkeep" replay chats chat:users=10,turns=5,seed=3 --json
	json 'v["ok"] and v["requests"] == 50 and v["hits"] == v["model_hits"] == v["unlimited_hits"] > 100'
	json 'v["wrong_bytes"] == 0 and v["restarts"] == 0 and v["bytes_read"] == v["hits"] * v["block_bytes"]'
	json 'v["bytes_written"] == v["distinct_blocks"] * v["block_bytes"]'
	json 'all(v[o][p] > 0 for o in ("lookup", "load", "store") for p in ("p50_us", "p99_us", "p999_us"))'
	json 'v["load"]["gb_per_s"] > 0 and v["store"]["gb_per_s"] > 0'
	gives 0 "$kvkeep" replay chats chat:users=10,turns=5,seed=3 --json --concurrency 1 --direct
	json 'v["ok"] and v["hit_ratio"] == 1 and v["found_before"] == v["distinct_blocks"] and v["bytes_written"] == 0'
}

replay_survives_kills()
{
	gives 0 "$kvkeep" replay killed chat:users=12,turns=8 --kill-at 20 --kill-at 50 --kill-at 70 --json
	json 'v["ok"] and v["restarts"] == 3 and v["hits"] == v["model_hits"] >= v["unlimited_hits"]'
	json 'v["unacknowledged_found"] <= v["unacknowledged"]'
	gives 0 "$kvkeep" verify killed
}

# Many small objects are stored while what was there before the kill is looked up: neither gets into the other's way.
replay_finds_all_while_others_are_stored()
{
	gives 0 "$kvkeep" replay busy chat:users=150,turns=3,systems=1,system=2048,prompt=16384,reply=0 --bytes-per-token 1 \
		--concurrency 16 --kill-at 50 --kill-at 100 --kill-at 150 --kill-at 200 --kill-at 250 --kill-at 300 --kill-at 350 \
		--kill-at 400 --json
	json 'v["ok"] and v["restarts"] == 8 and v["hits"] == v["model_hits"]'
}

replay_keeps_to_a_cap()
{
	gives 0 "$kvkeep" replay capped chat:users=10,turns=5 --capacity 20MiB --json
	json 'v["ok"] and v["no_room"] > 0 and v["bytes_written"] <= 20 << 20 and v["hits"] == v["model_hits"] < v["unlimited_hits"]'
}

replay_finds_a_lost_block()
{
	gives 0 "$kvkeep" replay lost chat:users=2,turns=2 --json
	gives 0 "$kvkeep" ls --json lost --limit 1
	gives 0 "$kvkeep" rm lost "$(python3 -c 'import json; print(json.load(open("out"))["objects"][0]["key"])')"
	gives 0 "$kvkeep" replay lost chat:users=2,turns=2 --json
	json 'v["ok"] and v["hit_ratio"] < 1'
}

# The block that is damaged between two runs is never a hit: its loads fail, and that is a failed check.
replay_finds_a_damaged_block()
{
	gives 0 "$kvkeep" ls --json lost --limit 1
	flip_byte "$(object_file lost "$(python3 -c 'import json; print(json.load(open("out"))["objects"][0]["key"])')")" 5000
	gives 1 "$kvkeep" replay lost chat:users=2,turns=2 --json
	json 'v["wrong_bytes"] == 0 and v["load"]["failed"].get("damaged") == 1 and not v["ok"]'
	gives 0 "$kvkeep" replay lost chat:users=2,turns=2 --json
}

replay_faults_are_told()
{
	gives 1 "$kvkeep" replay '{"backend_params":{"file_path":"sick"},"fault":[{"do":"fail","ops":["write"],"error":"EIO","nth":5}]}' \
		chat:users=2,turns=2 --json
	json 'v["wrong_bytes"] == 0 and sum(v["store"]["failed"].values()) >= 1'
}

replay_refuses_bad_traces()
{
	echo '{"timestamp": 1, "input_length": 1, "output_length": 1, "hash_ids": [1, 1]}' >bad.jsonl
	gives 1 "$kvkeep" replay store bad.jsonl
	says err 'bad.jsonl: line 1: '
	gives 1 "$kvkeep" replay store nowhere.jsonl
	gives 1 "$kvkeep" replay huge chat:users=100,turns=10 --bytes-per-token 8000000
	says err free
	[ ! -e huge ]
}

measures()
{
	gives 0 "$kvkeep" bench benched --bytes 256KiB --inflight 4 --seconds 200ms --total 32MiB --json
	json 'v["wrong_bytes"] == 0 and all(v[p]["items"] > 0 and v[p]["failed"] == 0 for p in ("put", "get", "lookup"))'
	json 'v["put"]["bytes"] <= 32 << 20'
	gives 0 "$kvkeep" ls --json benched
	json 'v["objects"] == []'
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
tap 'df shows what is used, by whom, and what may be' shows_what_is_used
tap 'cap is shown and changed' changes_the_cap
tap 'quota: what tenants may hold is kept' keeps_quotas
tap 'purge removes a tenant, a model, a namespace, an age, and nothing else' purges
tap 'purge: what is of no known age stays' purges_nothing_of_unknown_age
tap 'purge: directories of LMCache' purges_directories_of_lmcache
tap 'evict takes the coldest' evicts_the_coldest
tap 'df, cap, evict and fsck beside another process' sees_other_processes
tap 'fsck finds and repairs drift' finds_and_repairs_drift
tap 'verbs change nothing that they were not told to' leaves_what_it_was_not_told_to_change
tap 'objects that were not to persist can be looked at' looks_at_what_was_not_to_persist
tap 'doctor looks at machine and directory, and leaves nothing' doctors
tap 'namespace lists, shows and compares' compares_namespaces
tap 'stores are directories, JSON and @files' takes_stores_as_json_and_from_files
tap 'verbs that read make no store' readers_make_nothing
tap 'bad usage ends with 2' refuses_bad_usage
tap 'help tells of every verb' helps
tap 'output that cannot be written is an error' full_disk_of_output_is_an_error
tap 'replay: hits are those of the model, every byte is right' replay_agrees_with_the_model
tap 'replay: what was acknowledged before SIGKILL is a hit after' replay_survives_kills
tap 'replay: all is found while others are stored' replay_finds_all_while_others_are_stored
tap 'replay: a cap holds, and the model knows of it' replay_keeps_to_a_cap
tap 'replay: a block that is gone is no hit' replay_finds_a_lost_block
tap 'replay: a damaged block is a failed load, not a wrong byte' replay_finds_a_damaged_block
tap 'replay: failures of the medium are told' replay_faults_are_told
tap 'replay: bad traces and too large ones are refused' replay_refuses_bad_traces
tap 'bench measures and cleans up' measures
echo "1..$number"
exit $failed
