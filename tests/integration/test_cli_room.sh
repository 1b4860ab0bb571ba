#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The verbs that look after room, from outside: df, cap, quota, purge, evict, fsck. TAP.
#
# Usage: test_cli_room.sh KVKEEP

# shellcheck disable=SC2317  # tap() calls the functions

set -euo pipefail

kvkeep=$(realpath "$1")
# shellcheck source=tests/integration/cli.sh
. "$(dirname "$(realpath "$0")")/cli.sh"

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
		sleep 0.1
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
echo "1..$number"
exit $failed
