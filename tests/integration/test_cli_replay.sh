#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The verbs that make load, from outside: replay, simulate and bench. TAP.
#
# Usage: test_cli_replay.sh KVKEEP

# shellcheck disable=SC2317  # tap() calls the functions

set -euo pipefail

kvkeep=$(realpath "$1")
# shellcheck source=tests/integration/cli.sh
. "$(dirname "$(realpath "$0")")/cli.sh"

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

simulates()
{
	gives 0 "$kvkeep" simulate chat:users=40,turns=8,seed=3 --json --capacity 10% --capacity 100% --bytes-per-token 16
	json '[r["policy"] for r in v["runs"]] == ["LRU", "S3FIFO", "ARC", "Belady"] * 2'
	json 'v["requests"] == 320 and v["block_bytes"] == 8192 and v["runs"][0]["capacity_bytes"] >= v["distinct_blocks"] * 819.2'
	json 'all(0 < r["hits"] < v["runs"][3]["hits"] <= v["unlimited_hits"] for r in v["runs"][:3])'
	# Where all fit, nothing is written twice.
	json 'all(r["hits"] == v["unlimited_hits"] for r in v["runs"][4:])'
	json 'all(r["written_bytes"] == v["distinct_blocks"] * 8192 for r in v["runs"][4:7]) and v["runs"][0]["accesses_per_s"] > 0'

	gives 0 "$kvkeep" simulate chat:users=40,turns=8,seed=3 --capacity 1MiB --policy noop
	says out 'blocks found no room'
	says out 'Belady'
	gives 2 "$kvkeep" simulate chat:users=4,turns=2 --policy lru
	says err "'lru' is none of noop, LRU, S3FIFO, ARC and IsolatedLRU"
	gives 2 "$kvkeep" simulate chat:users=4,turns=2 --capacity 0
	gives 2 "$kvkeep" simulate chat:users=4,turns=2 --bytes-per-token 10000000
	gives 1 "$kvkeep" simulate missing
	echo '{"timestamp": 0, "input_length": 5, "output_length": 1, "hash_ids": []}' >empty.jsonl
	gives 1 "$kvkeep" simulate empty.jsonl --json
	says err 'no request names a block'
	gives 2 "$kvkeep" simulate
}

measures()
{
	gives 0 "$kvkeep" bench benched --bytes 256KiB --inflight 4 --seconds 200ms --total 32MiB --json
	json 'v["wrong_bytes"] == 0 and all(v[p]["items"] > 0 and v[p]["failed"] == 0 for p in ("put", "get", "lookup"))'
	json 'v["put"]["bytes"] <= 32 << 20'
	gives 0 "$kvkeep" ls --json benched
	json 'v["objects"] == []'
}

tap 'replay: hits are those of the model, every byte is right' replay_agrees_with_the_model
tap 'replay: what was acknowledged before SIGKILL is a hit after' replay_survives_kills
tap 'replay: all is found while others are stored' replay_finds_all_while_others_are_stored
tap 'replay: a cap holds, and the model knows of it' replay_keeps_to_a_cap
tap 'replay: a block that is gone is no hit' replay_finds_a_lost_block
tap 'replay: a damaged block is a failed load, not a wrong byte' replay_finds_a_damaged_block
tap 'replay: failures of the medium are told' replay_faults_are_told
tap 'replay: bad traces and too large ones are refused' replay_refuses_bad_traces
tap 'simulate: policies beside Belady' simulates
tap 'bench measures and cleans up' measures
echo "1..$number"
exit $failed
