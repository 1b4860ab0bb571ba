/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holds the account against what lies in the directory, counted without the library. While others store and remove the two
 * are never taken at one instant, and bytes that were published but not posted yet are still counted as leased: so it looks
 * until nothing has moved, and until then demands only that there is no more than what is charged and leased.
 */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "disk.h"
#include "status.h"
#include "text.h"

/* What was removed is credited within a second and a bit; so much longer nothing may have moved. */
#define REST_NS UINT64_C(2500000000)
/* The keeper lowers a charge only after a sync, and makes one every few seconds at most. */
#define REPAIR_REST_NS UINT64_C(15000000000)
/* Others may never rest. */
#define PATIENCE_NS UINT64_C(20000000000)
/* What holds up a repair may end; and between two looks at the user's patience. */
#define REPAIR_NS UINT64_C(60000000000)
#define REPAIR_STEP_US UINT64_C(200000)
#define PAUSE_NS 500000000

struct look {
	struct kvk_disk disk;
	struct kvk_usage usage;
	int64_t drift_bytes;       /* what the account has more than there is */
};

struct fsck {
	const char *directory;
	struct kvk_disk_layout layout;
	bool repair;
	bool json;
	bool at_rest;              /* the last look is of one instant */
	uint64_t rest_ns;          /* a drift that has not moved for so long stays */
	struct look first, last;
	struct kvk_progress progress;
};

static bool tick(void *user, const struct kvk_disk *disk)
{
	struct fsck *fsck = user;

	kvk_progress_show(&fsck->progress, disk->files[KVK_DISK_OBJECT], 0, "objects", 0);
	return !kvk_cli_interrupted;
}

static int64_t difference(uint64_t a, uint64_t b)
{
	return (int64_t)(a - b);
}

/* *still: nothing moved while it looked. */
static int look_once(struct fsck *fsck, struct kvk_store *store, struct look *ret, bool *still)
{
	struct kvk_usage after;
	struct look look;
	int err, status = kvk_cli_usage_of(store, &look.usage);

	if (status)
		return status;
	err = kvk_disk_read(&look.disk, fsck->directory, &fsck->layout, tick, fsck);
	if (err == -ECANCELED)
		return kvk_cli_fail("interrupted");
	if (err)
		return kvk_cli_fail("%s: cannot be read: %s", fsck->directory, strerror(-err));
	status = kvk_cli_usage_of(store, &after);
	if (status)
		return status;
	*still = look.usage.used_bytes == after.used_bytes && look.disk.folders_changed == 0;
	look.usage = after;
	look.drift_bytes = difference(after.used_bytes, kvk_disk_charged(&look.disk));
	*ret = look;
	return 0;
}

static bool same(const struct look *a, const struct look *b)
{
	return a->usage.used_bytes == b->usage.used_bytes && kvk_disk_charged(&a->disk) == kvk_disk_charged(&b->disk);
}

/* Looks until account and medium agree, or differ and nothing moves any more, or others have been busy for too long. */
static int look(struct fsck *fsck, struct kvk_store *store, struct look *ret)
{
	uint64_t begin_ns = kvk_cli_now_ns(), since_ns = begin_ns;
	struct look before = { .drift_bytes = 0 };
	bool first = true, still = false;

	for (;;) {
		struct timespec pause = { .tv_nsec = PAUSE_NS };
		int status = look_once(fsck, store, ret, &still);
		uint64_t now_ns = kvk_cli_now_ns();

		if (status)
			return status;
		if (first || !still || !same(&before, ret))
			since_ns = now_ns;
		fsck->at_rest = still && (ret->drift_bytes == 0 || now_ns - since_ns > fsck->rest_ns);
		if (fsck->at_rest || now_ns - begin_ns > PATIENCE_NS)
			return 0;
		before = *ret;
		first = false;
		nanosleep(&pause, NULL);
	}
}

static bool is_sound(const struct fsck *fsck, const struct look *look)
{
	uint64_t charged = kvk_disk_charged(&look->disk);

	return fsck->at_rest ? look->drift_bytes == 0 : charged <= look->usage.used_bytes + look->usage.leased_bytes;
}

/* If another process keeps the store it finds out by itself, and what cannot be settled in time shows in the last look. */
static int repair(struct kvk_store *store)
{
	uint64_t begin_ns = kvk_cli_now_ns();
	int err;

	do {
		err = kvk_store_scan(store, REPAIR_STEP_US);
	} while (err == -ETIMEDOUT && !kvk_cli_interrupted && kvk_cli_now_ns() - begin_ns < REPAIR_NS);
	if (kvk_cli_interrupted)
		return kvk_cli_fail("interrupted");
	return !err || err == -EBUSY || err == -ETIMEDOUT ? 0 : kvk_cli_fail("not repaired: %s", strerror(-err));
}

static int report(const struct fsck *fsck)
{
	const struct kvk_disk *disk = &fsck->last.disk;
	const struct kvk_usage *usage = &fsck->last.usage;
	int64_t drift = fsck->last.drift_bytes;
	bool sound = is_sound(fsck, &fsck->last);
	char a[KVK_CLI_TEXT_BYTES], b[KVK_CLI_TEXT_BYTES], c[KVK_CLI_TEXT_BYTES];

	if (fsck->json)
		return kvk_cli_print_json(json_pack(
			"{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:I}", "sound", sound,
			"disk_bytes", (json_int_t)kvk_disk_charged(disk), "objects",
			(json_int_t)disk->files[KVK_DISK_OBJECT], "object_bytes",
			(json_int_t)disk->bytes[KVK_DISK_OBJECT], "temporary_bytes",
			(json_int_t)disk->bytes[KVK_DISK_TEMPORARY], "gone_bytes",
			(json_int_t)disk->bytes[KVK_DISK_GONE], "quarantine_bytes",
			(json_int_t)disk->bytes[KVK_DISK_QUARANTINE], "used_bytes", (json_int_t)usage->used_bytes,
			"leased_bytes", (json_int_t)usage->leased_bytes, "drift_bytes", (json_int_t)drift, "at_rest",
			fsck->at_rest, "exact", (usage->flags & KVK_USAGE_EXACT) != 0, "first_drift_bytes",
			(json_int_t)fsck->first.drift_bytes)) ? KVK_EXIT_FAILED : sound ? KVK_EXIT_DONE : KVK_EXIT_FAILED;
	printf("on disk    %s (%llu bytes): %llu objects", kvk_cli_format_bytes(a, kvk_disk_charged(disk)),
	       (unsigned long long)kvk_disk_charged(disk), (unsigned long long)disk->files[KVK_DISK_OBJECT]);
	if (disk->files[KVK_DISK_TEMPORARY])
		printf(", %s in temporary files", kvk_cli_format_bytes(b, disk->bytes[KVK_DISK_TEMPORARY]));
	if (disk->files[KVK_DISK_GONE])
		printf(", %s removed but not freed", kvk_cli_format_bytes(b, disk->bytes[KVK_DISK_GONE]));
	if (disk->files[KVK_DISK_QUARANTINE])
		printf(", %s in quarantine", kvk_cli_format_bytes(b, disk->bytes[KVK_DISK_QUARANTINE]));
	printf("\naccount    %s (%llu bytes), %s more leased\n", kvk_cli_format_bytes(a, usage->used_bytes),
	       (unsigned long long)usage->used_bytes, kvk_cli_format_bytes(c, usage->leased_bytes));
	if (fsck->first.drift_bytes != drift)
		printf("corrected  %lld bytes\n", (long long)(fsck->first.drift_bytes - drift));
	if (sound) {
		puts(fsck->at_rest ? "they agree" : "others are storing; there is no more than what is charged and leased");
		return KVK_EXIT_DONE;
	}
	kvk_cli_format_bytes(a, (uint64_t)llabs(drift));
	if (drift < 0)
		return kvk_cli_fail("%s (%lld bytes) more is there than the account has: the cap may be exceeded%s", a,
				    (long long)-drift, fsck->repair ? "" : "; --repair counts anew");
	return kvk_cli_fail("%s (%lld bytes) is charged that is not there: room that cannot be used%s", a,
			    (long long)drift, fsck->repair ? "" : "; --repair counts anew");
}

static int prepare(struct fsck *fsck, const json_t *spec, struct kvk_store *store)
{
	json_t *status = kvk_cli_status(store);
	const json_t *settings = json_object_get(status, "settings");
	const char *naming = json_string_value(json_object_get(settings, "naming"));
	const char *type = json_string_value(json_object_get(spec, "type"));
	int result = 0;

	fsck->directory = kvk_cli_spec_directory(spec);
	if (!fsck->directory || (type && strcmp(type, "nixl_store_dynamic") != 0))
		result = kvk_cli_fail("only a store with a file for each object can be held against its directory");
	else if (!naming)
		result = kvk_cli_fail("the store does not tell how its files are named");
	else
		fsck->layout = (struct kvk_disk_layout){
			.lmcache = !strcmp(naming, "lmcache"),
			.levels = (uint32_t)kvk_cli_member(settings, "folder_levels"),
		};
	json_decref(status);
	return result;
}

/* Whoever keeps a store corrects its account: to see it as it is, it must not be kept. */
static int open_to_look(struct kvk_store **ret, json_t *spec, bool keeper)
{
	if (json_object_set_new(spec, "keeper", json_boolean(keeper)))
		return kvk_cli_fail("not enough memory");
	return kvk_cli_open_spec(ret, spec, false, NULL);
}

static int check_as_it_is(struct fsck *fsck, json_t *spec)
{
	struct kvk_store *store = NULL;
	int status = open_to_look(&store, spec, false);

	if (!status)
		status = prepare(fsck, spec, store);
	if (!status) {
		kvk_progress_begin(&fsck->progress, "fsck");
		status = look(fsck, store, &fsck->first);
		kvk_progress_end(&fsck->progress);
	}
	fsck->last = fsck->first;
	kvk_store_close(store);
	return status;
}

static int check_repaired(struct fsck *fsck, json_t *spec)
{
	struct kvk_store *store = NULL;
	int status = open_to_look(&store, spec, true);

	if (!status)
		status = repair(store);
	if (!status) {
		fsck->rest_ns = REPAIR_REST_NS;
		kvk_progress_begin(&fsck->progress, "fsck");
		status = look(fsck, store, &fsck->last);
		kvk_progress_end(&fsck->progress);
	}
	kvk_store_close(store);
	return status;
}

static int run(const struct kvk_cli_verb *verb, int argc, char **argv)
{
	struct fsck fsck = { .rest_ns = REST_NS };
	const struct kvk_cli_option options[] = {
		{ "repair", KVK_OPTION_FLAG, .value = &fsck.repair },
		{ .name = NULL },
	};
	struct kvk_cli_line line;
	json_t *spec = NULL;
	int status = kvk_cli_read_line(&line, verb, argc, argv, options, 1, 1, "wants one STORE");

	if (status)
		return status;
	fsck.json = line.json;
	kvk_cli_catch_signals();
	status = kvk_cli_spec(&spec, line.words[0], &(struct kvk_cli_overlay){ .use = KVK_USE_TEND });
	if (!status)
		status = check_as_it_is(&fsck, spec);
	if (!status && fsck.repair)
		status = check_repaired(&fsck, spec);
	if (!status)
		status = report(&fsck);
	json_decref(spec);
	return status;
}

const struct kvk_cli_verb kvk_cli_fsck = {
	.name = "fsck",
	.arguments = "STORE [--repair] [--json]",
	.summary = "hold the account against what lies in the directory",
	.help = "  --repair              then have everything counted anew, and wait for it\n"
		"  --json                an object: sound, disk_bytes, objects, object_bytes, temporary_bytes, gone_bytes,\n"
		"                        quarantine_bytes, used_bytes, leased_bytes, drift_bytes, at_rest, exact,\n"
		"                        first_drift_bytes\n\n"
		"Drift is what the account has more than there is; at rest it is 0. While other processes store it waits for\n"
		"a quiet moment, and if there is none, demands only that no more is there than what is charged and leased.\n"
		"Without --repair nothing is changed. The exit status is 1 if they disagree at the end. Objects are not read: `kvkeep verify` does that.\n",
	.run = run,
};
