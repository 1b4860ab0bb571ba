/* SPDX-License-Identifier: Apache-2.0 */
/* Figures, health, lists: what people and their programs look at. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include <kvkeep/version.h>

#include "store/core.h"
#include "util/alloc.h"
#include "util/clock.h"

/* ---- figures ------------------------------------------------------------------------------------ */

void kvk_core_usage(struct kvk_core *core, struct kvk_usage *ret)
{
	struct kvk_catalog_totals totals;
	struct kvk_usage usage;
	uint64_t used, cap;

	kvk_catalog_totals(core->catalog, &totals);
	kvk_account_usage(core->account, &used, &cap);
	usage = (struct kvk_usage){
		.struct_bytes = ret->struct_bytes,
		.flags = (atomic_load(&core->view.exact) ? KVK_USAGE_EXACT : 0) |
			 (atomic_load(&core->keeper) ? KVK_USAGE_KEEPER : 0),
		.used_bytes = used,
		.writing_bytes = totals.writing_bytes,
		.cap_bytes = cap,
		.objects = totals.objects,
		.pinned_objects = totals.pinned_objects,
		.quarantined_bytes = kvk_account_bucket(core->account, KVK_BUCKET_QUARANTINE),
		.used_fraction = cap ? (double)used / (double)cap : -1,
		.leased_bytes = atomic_load(&core->view.leased_bytes),
		.limit_bytes = atomic_load(&core->view.limit_bytes),
		.medium_free_bytes = atomic_load(&core->view.free_bytes),
		.floor_bytes = atomic_load(&core->view.floor_bytes),
		.processes = atomic_load(&core->view.processes),
	};
	memcpy(ret, &usage, sizeof(usage));
}

void kvk_core_stats(struct kvk_core *core, struct kvk_stats *ret)
{
	const struct kvk_adapter_counts *adapter = &core->adapter->counts;
	struct kvk_agent_stats agent;
	struct kvk_stats stats;

	kvk_agent_stats(core->agent, &agent);
	stats = (struct kvk_stats){
		.struct_bytes = ret->struct_bytes,
		.puts = core->counts.puts,
		.put_stored = core->counts.put_stored,
		.put_present = core->counts.put_present,
		.put_no_room = core->counts.put_no_room,
		.put_failed = core->counts.put_failed,
		.put_bytes = core->counts.put_bytes,
		.gets = core->counts.gets,
		.get_hits = core->counts.get_hits,
		.get_absent = core->counts.get_absent,
		.get_damaged = core->counts.get_damaged,
		.get_failed = core->counts.get_failed,
		.get_bytes = core->counts.get_bytes,
		.get_unverified = adapter->unverified,
		.lookups = core->counts.lookups,
		.lookup_memory_hits = core->counts.lookup_memory_hits,
		.lookup_medium_hits = core->counts.lookup_medium_hits,
		.lookup_absent = core->counts.lookup_absent,
		.removes = core->counts.removes,
		.removed = core->counts.removed,
		.deadlines = core->counts.deadlines,
		.canceled = core->counts.canceled,
		.medium_errors = agent.medium_errors,
		.short_transfers = agent.short_transfers,
		.rereads = adapter->rereads,
		.quarantined = adapter->quarantined,
		.collisions = adapter->collisions,
		.links = adapter->links,
		.copied_bytes = agent.copied_bytes,
		.straight_bytes = agent.straight_bytes,
		.evicted = core->counts.evicted,
		.evicted_bytes = core->counts.evicted_bytes,
		.evict_kept = core->counts.evict_kept,
		.medium_full = core->counts.medium_full,
		.notices_dropped = atomic_load(&core->notices.dropped),
	};
	memcpy(ret, &stats, sizeof(stats));
}

/* ---- health ------------------------------------------------------------------------------------- */

static json_t *word_or_null(const char *text)
{
	return text[0] ? json_string(text) : json_null();
}

/* NULL: nothing is wrong. */
static json_t *degraded(struct kvk_core *core, const struct kvk_agent_stats *agent)
{
	uint64_t trouble_us = atomic_load(&core->trouble_us);
	int status = atomic_load(&core->trouble);

	if (agent->stuck_lanes)
		return json_sprintf("%d of %d lanes hang in the medium", (int)agent->stuck_lanes, (int)agent->lanes);
	if (trouble_us && kvk_now_us() - trouble_us < KVK_TROUBLE_US)
		return json_sprintf("the medium failed within the last minute: %s", strerror(-status));
	return NULL;
}

static json_t *medium_json(const struct kvk_backend_caps *caps, const struct kvk_spec *spec)
{
	return json_pack("{s:s, s:b, s:b, s:o, s:i, s:i, s:s, s:b, s:b, s:b, s:b, s:b}",
			 "medium", caps->medium, "direct_io_asked", spec->direct, "direct_io", caps->direct,
			 "direct_io_note", word_or_null(caps->direct_note),
			 "align_memory_bytes", (int)caps->align_memory_bytes,
			 "align_offset_bytes", (int)caps->align_offset_bytes, "publish", caps->publish,
			 "exchange", caps->exchange, "birth_time", caps->birth_time, "local", caps->local,
			 "discard", caps->discard, "nowait", caps->nowait);
}

static json_t *slots_json(const struct kvk_core *core)
{
	struct kvk_slots slots;

	if (!core->adapter->ops->slots)
		return json_null();
	core->adapter->ops->slots(core->adapter, &slots);
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:i}", "slot_bytes", (json_int_t)slots.slot_bytes, "slots",
			 (json_int_t)slots.slots, "free_slots", (json_int_t)slots.free_slots, "longest_free_slots",
			 (json_int_t)slots.longest_free_slots, "lost_slots", (json_int_t)slots.lost_slots, "files",
			 (int)slots.files);
}

static json_t *settings_json(const struct kvk_core *core)
{
	static const char *const durability[] = { "none", "batch", "object" };
	const struct kvk_superblock *is = &core->superblock;
	char id[33], digest[2 * KVK_DIGEST_BYTES + 1];

	kvk_hex(id, is->store_id, 16);
	kvk_hex(digest, core->spec.namespace_digest, KVK_DIGEST_BYTES);
	return json_pack("{s:s, s:s, s:o, s:s, s:i, s:I, s:s, s:b, s:b, s:s, s:I}",
			 "type", core->adapter->ops->name, "store_id", id, "path", word_or_null(core->spec.path ? core->spec.path : ""),
			 "naming", is->layout.naming == KVK_NAMING_LMCACHE ? "lmcache" : "kvkeep",
			 "folder_levels", (int)is->layout.levels, "cap_bytes", (json_int_t)is->cap_bytes,
			 "durability", durability[is->durability], "persist", is->persist, "group", is->group,
			 "namespace", digest, "deadline_ms", (json_int_t)(core->spec.deadline_us / 1000));
}

static json_t *agent_json(const struct kvk_agent_stats *agent, const struct kvk_backend_caps *caps)
{
	return json_pack("{s:s, s:o, s:i, s:i, s:I, s:I, s:I, s:I}",
			 "engine", agent->ring ? "io_uring" : agent->workers ? "threads" : "inline",
			 "engine_note", word_or_null(caps->ring_note), "lanes", (int)agent->lanes,
			 "stuck_lanes", (int)agent->stuck_lanes, "memory_bytes", (json_int_t)agent->memory_bytes,
			 "held_slots", (json_int_t)agent->held_slots,
			 "read_depth_bytes", (json_int_t)agent->read_depth_bytes,
			 "write_depth_bytes", (json_int_t)agent->write_depth_bytes);
}

#define ROWS 256

static json_t *account_json(struct kvk_core *core)
{
	struct kvk_account_row rows[ROWS];
	uint32_t count = kvk_account_rows(core->account, rows, ROWS);
	json_t *list = json_array();
	uint64_t used, cap, skew_ns = kvk_account_skew_ns(core->account);

	kvk_account_usage(core->account, &used, &cap);
	for (uint32_t i = 0; i < count && i < ROWS; i++)
		json_array_append_new(list, json_pack("{s:i, s:i, s:s, s:b, s:b, s:I}", "index", (int)rows[i].index,
						      "pid", (int)rows[i].pid, "host", rows[i].host, "alive",
						      rows[i].alive, "self", rows[i].self, "leased_bytes",
						      (json_int_t)rows[i].leased_bytes));
	return json_pack("{s:I, s:I, s:I, s:b, s:I, s:o, s:o}",
			 "epoch", (json_int_t)kvk_account_epoch(core->account, &(bool){ false }),
			 "charged_bytes", (json_int_t)used, "leased_bytes", (json_int_t)atomic_load(&core->view.leased_bytes),
			 "exact", atomic_load(&core->view.exact),
			 "limit_bytes", (json_int_t)atomic_load(&core->view.limit_bytes), "clock_skew_s",
			 skew_ns ? json_real((double)skew_ns / 1e9) : json_null(), "rows", list);
}

static json_t *quota_json(uint64_t bytes)
{
	return bytes == UINT64_MAX ? json_null() : json_integer((json_int_t)bytes);
}

static json_t *scan_json(struct kvk_core *core)
{
	static const char *const phases[] = { "waiting", "names", "footers", "settling", "idle" };
	struct kvk_scan_state state = { .phase = KVK_SCAN_WAITING, .left_us = UINT64_MAX };

	if (core->scan_state)
		core->scan_state(core->scan_user, &state);
	return json_pack("{s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:o, s:I, s:I, s:o}",
			 "phase", phases[state.phase], "keeper", atomic_load(&core->keeper),
			 "buckets", (json_int_t)state.buckets, "buckets_done", (json_int_t)state.buckets_done,
			 "objects", (json_int_t)state.objects, "bytes", (json_int_t)state.bytes,
			 "footers", (json_int_t)state.footers, "unreadable", (json_int_t)state.unreadable,
			 "from_snapshot", (json_int_t)state.from_snapshot, "swept", (json_int_t)state.swept,
			 "per_second", (json_int_t)state.per_second, "elapsed_s", (double)state.elapsed_us / 1e6,
			 "left_s", state.left_us == UINT64_MAX ? json_null() : json_real((double)state.left_us / 1e6),
			 "drift_bytes", (json_int_t)state.drift_bytes, "unsettled", (json_int_t)state.unsettled,
			 "trouble", word_or_null(state.trouble ? strerror(-state.trouble) : ""));
}

int kvk_core_status(struct kvk_core *core, char **ret)
{
	struct kvk_catalog_totals totals;
	struct kvk_agent_stats agent;
	json_t *why, *root;
	char *text;

	kvk_agent_stats(core->agent, &agent);
	kvk_catalog_totals(core->catalog, &totals);
	why = degraded(core, &agent);
	root = json_pack("{s:b, s:o?, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:o}",
			 "healthy", why == NULL, "degraded", why ? why : json_null(), "version", kvk_version(),
			 "settings", settings_json(core), "pool", slots_json(core), "medium", medium_json(&core->backend->caps, &core->spec),
			 "agent", agent_json(&agent, &core->backend->caps),
			 "account", account_json(core), "scan", scan_json(core), "catalog_objects", (json_int_t)totals.objects,
			 "catalog_memory_bytes", (json_int_t)totals.memory_bytes,
			 "medium_free_bytes", (json_int_t)atomic_load(&core->view.free_bytes),
			 "medium_total_bytes", (json_int_t)atomic_load(&core->view.total_bytes),
			 "default_quota_bytes", quota_json(atomic_load(&core->quotas.default_bytes)));
	if (!root)
		return -ENOMEM;
	text = json_dumps(root, JSON_COMPACT);
	json_decref(root);
	if (!text)
		return -ENOMEM;
	*ret = kvk_mem_strdup(text);
	free(text);
	return *ret ? 0 : -ENOMEM;
}

/* ---- lists -------------------------------------------------------------------------------------- */

/* A page looks at this many objects for each entry it may return, so that a rare filter cannot keep it for hours. */
#define LOOKS_PER_ENTRY 16

struct page {
	struct kvk_core *core;
	const struct kvk_list_query *query;
	struct kvk_list_entry *entries;
	uint32_t count;
	uint32_t filled;
	uint64_t looks;
	char last[KVK_NAME_BYTES_MAX];
};

static bool same_bytes(const struct kvk_key *wanted, const struct kvk_key *is)
{
	return wanted->bytes == is->bytes && !memcmp(wanted->data, is->data, is->bytes);
}

static bool matches(const struct page *page, const struct kvk_listed *listed)
{
	const struct kvk_list_query *query = page->query;
	struct kvk_key_fields fields = { .struct_bytes = sizeof(fields) };
	struct kvk_key key = { .data = listed->key, .bytes = listed->key_bytes };
	uint8_t hash[KVK_KEY_BYTES_MAX / 2];

	/* What nobody can tell the age of is not older than anything. */
	if (query->created_before_ns && (!listed->facts.created_ns || listed->facts.created_ns >= query->created_before_ns))
		return false;
	if (query->prefix.bytes && (key.bytes < query->prefix.bytes ||
				    memcmp(key.data, query->prefix.data, query->prefix.bytes)))
		return false;
	if (!query->model.bytes && !query->salt.bytes)
		return true;
	if (!key.bytes || kvk_key_decode(&fields, &key, hash, sizeof(hash)))
		return false;
	return (!query->model.bytes || same_bytes(&query->model, &fields.model)) &&
	       (!query->salt.bytes || same_bytes(&query->salt, &fields.salt));
}

static void fill(struct page *page, const struct kvk_listed *listed)
{
	struct kvk_list_entry *entry = (void *)((char *)page->entries +
						(size_t)page->filled * page->entries->struct_bytes);
	const struct kvk_facts *facts = &listed->facts;
	uint32_t struct_bytes = entry->struct_bytes;

	memset(entry, 0, sizeof(*entry));
	entry->struct_bytes = struct_bytes;
	entry->state = listed->state;
	entry->object_bytes = facts->logical_bytes;
	entry->stored_bytes = facts->stored_bytes;
	entry->created_ns = facts->created_ns;
	strncpy(entry->name, listed->name, sizeof(entry->name) - 1);
	memcpy(entry->digest, facts->digest, sizeof(entry->digest));
	if (listed->key_bytes) {
		entry->depth = facts->depth;
		entry->key_bytes = listed->key_bytes;
		entry->meta_bytes = facts->meta_bytes;
		memcpy(entry->parent_digest, facts->parent_digest, sizeof(entry->parent_digest));
		memcpy(entry->namespace_digest, facts->namespace_digest, sizeof(entry->namespace_digest));
		memcpy(entry->key, listed->key, listed->key_bytes);
		memcpy(entry->meta, facts->meta, facts->meta_bytes);
		entry->pins = kvk_catalog_pins(page->core->catalog, facts->digest);
	}
	page->filled++;
}

static bool visit(void *user, const struct kvk_listed *listed)
{
	struct page *page = user;

	if (matches(page, listed))
		fill(page, listed);
	strcpy(page->last, listed->name);
	page->looks++;
	return page->filled < page->count && page->looks < (uint64_t)page->count * LOOKS_PER_ENTRY;
}

int kvk_core_list(struct kvk_core *core, const struct kvk_list_query *query, struct kvk_list_entry *entries,
		  uint32_t count, char **cursor_ret)
{
	struct kvk_list_query all = { .struct_bytes = sizeof(all) };
	struct page page = { .core = core, .query = query ? query : &all, .entries = entries, .count = count };
	char *cursor = NULL;
	int err = core->adapter->ops->list(core->adapter, page.query->cursor, visit, &page);

	if (err < 0)
		return err;
	if (err > 0) {
		cursor = kvk_mem_strdup(page.last);
		if (!cursor)
			return -ENOMEM;
	}
	*cursor_ret = cursor;
	return (int)page.filled;
}
