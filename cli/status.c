/* SPDX-License-Identifier: Apache-2.0 */
#include "status.h"

#include <errno.h>
#include <string.h>
#include <time.h>

/* A store looks at its account at once after it was opened; on a medium that hangs it may never. */
#define FIRST_LOOK_NS UINT64_C(5000000000)
#define PAUSE_NS 20000000
/* Whoever is free to be the keeper tries every 250 ms. */
#define KEEPER_NS UINT64_C(1000000000)

volatile sig_atomic_t kvk_cli_interrupted;

static void on_signal(int signal)
{
	(void)signal;
	kvk_cli_interrupted = 1;
}

void kvk_cli_catch_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

static void pause_a_little(void)
{
	struct timespec pause = { .tv_nsec = PAUSE_NS };

	nanosleep(&pause, NULL);
}

uint64_t kvk_cli_member(const json_t *object, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(object, name));
}

json_t *kvk_cli_status(struct kvk_store *store)
{
	json_t *value = NULL;
	char *text = NULL;

	if (!kvk_store_status(store, &text))
		value = json_loads(text, 0, NULL);
	kvk_free(text);
	return value;
}

int kvk_cli_usage_of(struct kvk_store *store, struct kvk_usage *usage)
{
	uint64_t begin_ns = kvk_cli_now_ns();
	int err;

	for (;;) {
		*usage = (struct kvk_usage){ .struct_bytes = sizeof(*usage) };
		err = kvk_store_usage(store, usage);
		if (err)
			return kvk_cli_fail("usage: %s", strerror(-err));
		if (usage->processes > 0)
			return 0;
		if (kvk_cli_now_ns() - begin_ns > FIRST_LOOK_NS || kvk_cli_interrupted)
			return kvk_cli_fail("the store did not get to look at its account: the medium hangs, or a process that "
					    "was stopped holds its lock");
		pause_a_little();
	}
}

json_t *kvk_usage_json(struct kvk_store *store)
{
	struct kvk_usage usage = { .struct_bytes = sizeof(usage) };

	if (kvk_store_usage(store, &usage))
		return json_null();
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:I, s:I, s:I, s:I, s:I, s:b, s:b}",
			 "used_bytes", (json_int_t)usage.used_bytes, "writing_bytes", (json_int_t)usage.writing_bytes,
			 "cap_bytes", (json_int_t)usage.cap_bytes, "objects", (json_int_t)usage.objects,
			 "pinned_objects", (json_int_t)usage.pinned_objects,
			 "quarantined_bytes", (json_int_t)usage.quarantined_bytes, "used_fraction", usage.used_fraction,
			 "leased_bytes", (json_int_t)usage.leased_bytes, "limit_bytes", (json_int_t)usage.limit_bytes,
			 "medium_free_bytes", (json_int_t)usage.medium_free_bytes,
			 "floor_bytes", (json_int_t)usage.floor_bytes, "processes", (json_int_t)usage.processes,
			 "exact", (usage.flags & KVK_USAGE_EXACT) != 0, "keeper", (usage.flags & KVK_USAGE_KEEPER) != 0);
}

void kvk_scan_read(struct kvk_scan *ret, const json_t *status, const struct kvk_usage *usage)
{
	const json_t *scan = json_object_get(status, "scan"), *left = json_object_get(scan, "left_s");
	const json_t *drift = json_object_get(scan, "drift_bytes");
	const char *phase = json_string_value(json_object_get(scan, "phase"));

	*ret = (struct kvk_scan){
		.buckets_done = kvk_cli_member(scan, "buckets_done"), .buckets = kvk_cli_member(scan, "buckets"),
		.objects = kvk_cli_member(scan, "objects"), .bytes = kvk_cli_member(scan, "bytes"),
		.left_s = json_is_number(left) ? json_number_value(left) : -1,
		.has_drift = json_is_integer(drift), .drift_bytes = json_integer_value(drift),
	};
	if (!phase)
		ret->phase = KVK_SCAN_UNKNOWN;
	else if (!json_is_true(json_object_get(scan, "keeper")))
		ret->phase = usage->processes > 1 ? KVK_SCAN_ELSEWHERE : KVK_SCAN_WAITING;
	else if (!strcmp(phase, "names"))
		ret->phase = KVK_SCAN_NAMES;
	else if (!strcmp(phase, "footers"))
		ret->phase = KVK_SCAN_FOOTERS;
	else if (!strcmp(phase, "settling"))
		ret->phase = KVK_SCAN_SETTLING;
	else if (!strcmp(phase, "idle"))
		ret->phase = KVK_SCAN_IDLE;
}

const char *kvk_scan_text(enum kvk_scan_phase phase)
{
	switch (phase) {
	case KVK_SCAN_UNKNOWN:
		break;
	case KVK_SCAN_WAITING:
		return "waiting";
	case KVK_SCAN_ELSEWHERE:
		return "elsewhere";
	case KVK_SCAN_NAMES:
		return "names";
	case KVK_SCAN_FOOTERS:
		return "footers";
	case KVK_SCAN_SETTLING:
		return "settling";
	case KVK_SCAN_IDLE:
		return "idle";
	}
	return "unknown";
}

int kvk_scan_wait(struct kvk_store *store, const char *verb)
{
	uint64_t begin_ns = kvk_cli_now_ns();
	struct kvk_progress progress;
	struct kvk_usage usage;
	struct kvk_scan scan;
	json_t *status;
	int err = kvk_cli_usage_of(store, &usage) ? -EIO : 0;

	kvk_progress_begin(&progress, verb);
	while (!err) {
		usage = (struct kvk_usage){ .struct_bytes = sizeof(usage) };
		err = kvk_store_usage(store, &usage);
		if (err)
			break;
		status = kvk_cli_status(store);
		kvk_scan_read(&scan, status, &usage);
		json_decref(status);
		if (scan.phase == KVK_SCAN_SETTLING || scan.phase == KVK_SCAN_IDLE)
			break;
		/* Right after the last keeper closed nobody is it for a moment. */
		if (scan.phase == KVK_SCAN_ELSEWHERE && kvk_cli_now_ns() - begin_ns > KEEPER_NS)
			err = -EBUSY;
		else if (scan.phase == KVK_SCAN_UNKNOWN)
			err = -EIO;
		else if (kvk_cli_interrupted)
			err = -EINTR;
		if (err)
			break;
		kvk_progress_show(&progress, scan.buckets_done, scan.buckets,
				  scan.phase == KVK_SCAN_NAMES ? "folders listed" : "folders read", scan.bytes);
		pause_a_little();
	}
	kvk_progress_end(&progress);
	return err;
}
