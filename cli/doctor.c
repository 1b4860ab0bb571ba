/* SPDX-License-Identifier: Apache-2.0 */
#include "doctor.h"

#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"

static const char *const words[] = { "ok", "warn", "bad" };

void kvk_doctor_note(struct kvk_doctor *doctor, enum kvk_health health, const char *name, const char *advice,
		     const char *format, ...)
{
	char value[PATH_MAX + 128];
	va_list args;

	va_start(args, format);
	vsnprintf(value, sizeof(value), format, args);
	va_end(args);
	if (health > doctor->worst)
		doctor->worst = health;
	json_array_append_new(doctor->findings, json_pack(
		"{s:s, s:s, s:s, s:s, s:s?}", "part", doctor->part, "name", name, "state", words[health], "value", value,
		"advice", advice));
}

/* ---- what the library found by trying -------------------------------------------------------------- */

static void note_direct(struct kvk_doctor *doctor, const json_t *medium)
{
	const char *note = json_string_value(json_object_get(medium, "direct_io_note"));

	if (json_is_true(json_object_get(medium, "direct_io")))
		kvk_doctor_note(doctor, KVK_HEALTH_OK, "direct I/O", NULL, "works; memory aligned to %lld, offsets to %lld",
				(long long)json_integer_value(json_object_get(medium, "align_memory_bytes")),
				(long long)json_integer_value(json_object_get(medium, "align_offset_bytes")));
	else
		kvk_doctor_note(doctor, KVK_HEALTH_WARN, "direct I/O", "transfers go through the page cache: more CPU and "
				"memory; use ext4, XFS or a device of its own", "does not work here%s%s",
				note ? ": " : "", note ? note : "");
}

static void note_medium(struct kvk_doctor *doctor, const json_t *medium)
{
	const char *publish = json_string_value(json_object_get(medium, "publish"));
	bool exchange = json_is_true(json_object_get(medium, "exchange"));
	bool birth = json_is_true(json_object_get(medium, "birth_time"));
	bool local = json_is_true(json_object_get(medium, "local"));

	kvk_doctor_note(doctor, KVK_HEALTH_OK, "publishing", NULL, "by %s", publish ? publish : "(unknown)");
	kvk_doctor_note(doctor, KVK_HEALTH_OK, "exchange", NULL, "%s", exchange ? "works" :
			"not here: a damaged object is moved aside before it is replaced");
	kvk_doctor_note(doctor, birth ? KVK_HEALTH_OK : KVK_HEALTH_WARN, "birth time", birth ? NULL :
			"files of an LMCache directory cannot be told from newer ones, so unverified ones are refused",
			"%s", birth ? "known" : "not known");
	kvk_doctor_note(doctor, local ? KVK_HEALTH_OK : KVK_HEALTH_WARN, "local", local ? NULL :
			"deadlines and unlinking behave otherwise on a network: see \"shared\" in kvkeep(7)", "%s",
			local ? "yes" : "no");
	if (doctor->on_disk)
		kvk_doctor_note(doctor, KVK_HEALTH_OK, "discard", NULL, "%s",
				json_is_true(json_object_get(medium, "discard")) ? "the device is told of what is removed" :
				"not in use: run fstrim now and then on a flash device");
}

static void note_status(struct kvk_doctor *doctor, const json_t *status)
{
	const json_t *medium = json_object_get(status, "medium"), *agent = json_object_get(status, "agent");
	const char *why = json_string_value(json_object_get(status, "degraded"));
	const char *engine = json_string_value(json_object_get(agent, "engine"));
	const char *note = json_string_value(json_object_get(agent, "engine_note"));

	if (doctor->on_disk)
		note_direct(doctor, medium);
	note_medium(doctor, medium);
	kvk_doctor_note(doctor, KVK_HEALTH_OK, "engine", NULL, "%s with %lld lanes%s%s", engine ? engine : "(unknown)",
			(long long)json_integer_value(json_object_get(agent, "lanes")), note ? "; " : "",
			note ? note : "");
	if (why)
		kvk_doctor_note(doctor, KVK_HEALTH_BAD, "health", "look at the kernel's log and at the device", "%s", why);
	else
		kvk_doctor_note(doctor, KVK_HEALTH_OK, "health", NULL, "nothing failed so far");
}

static int look_inside(struct kvk_doctor *doctor, const json_t *spec)
{
	struct kvk_error error = { .text = "" };
	struct kvk_store *store = NULL;
	json_t *status = NULL;
	char *text = NULL;
	int err, exit_status = kvk_cli_open_spec(&store, spec, true, &error);

	if (exit_status) {
		kvk_doctor_note(doctor, KVK_HEALTH_BAD, "store", "mend what it says, then look again", "%s%s%s",
				error.option, error.option[0] ? ": " : "",
				error.text[0] ? error.text : strerror(-error.code));
		return 0;
	}
	err = kvk_store_status(store, &text);
	if (!err)
		status = json_loads(text, 0, NULL);
	if (status)
		note_status(doctor, status);
	else
		exit_status = kvk_cli_fail("the status of the store cannot be read");
	json_decref(status);
	kvk_free(text);
	kvk_store_close(store);
	return exit_status;
}

/* ---- a directory without a store ------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *stat_buffer, int flag, struct FTW *where)
{
	(void)stat_buffer;
	(void)flag;
	(void)where;
	return remove(path);
}

/* What cannot be asked of a directory is tried: a store in a folder of its own there, which is removed again. */
static int try_inside(struct kvk_doctor *doctor, const json_t *spec, const char *existing)
{
	char folder[PATH_MAX];
	json_t *copy;
	int status;

	if (snprintf(folder, sizeof(folder), "%s/.kvkeep-doctor-XXXXXX", existing) >= (int)sizeof(folder) ||
	    !mkdtemp(folder)) {
		kvk_doctor_note(doctor, KVK_HEALTH_BAD, "writable", "let this user write there", "%s: %s", existing,
				strerror(errno));
		return 0;
	}
	copy = json_deep_copy(spec);
	json_object_set_new(json_object_get(copy, "backend_params"), "file_path", json_string(folder));
	json_object_set_new(copy, "create", json_true());
	status = look_inside(doctor, copy);
	json_decref(copy);
	if (nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS | FTW_MOUNT))
		kvk_doctor_note(doctor, KVK_HEALTH_WARN, "trial", "remove it", "%s is left over: %s", folder, strerror(errno));
	return status;
}

static int examine_store(struct kvk_doctor *doctor, const char *argument)
{
	json_t *spec = NULL;
	char existing[PATH_MAX], superblock[PATH_MAX + 16];
	const char *directory;
	int status = kvk_cli_spec(&spec, argument, &(struct kvk_cli_overlay){ .use = KVK_USE_LOOK, .direct = true });

	if (status)
		return status;
	directory = kvk_cli_spec_directory(spec);
	if (!directory) {
		doctor->part = "store";
		json_object_set_new(spec, "create", json_true());
		status = look_inside(doctor, spec);
		json_decref(spec);
		return status;
	}
	doctor->on_disk = true;
	kvk_doctor_directory(doctor, directory);
	kvk_cli_existing_folder(existing, directory);
	snprintf(superblock, sizeof(superblock), "%s/.kvkeep", existing);
	if (!access(directory, F_OK) && !access(superblock, F_OK))
		status = look_inside(doctor, spec);
	else
		status = try_inside(doctor, spec, existing);
	json_decref(spec);
	return status;
}

static void print_findings(const struct kvk_doctor *doctor)
{
	const char *part = "", *advice;
	json_t *finding;
	size_t i;

	json_array_foreach(doctor->findings, i, finding) {
		const char *of = json_string_value(json_object_get(finding, "part"));

		if (strcmp(part, of))
			printf("%s%s\n", i ? "\n" : "", of);
		part = of;
		printf("  %-4s  %-14s %s\n", json_string_value(json_object_get(finding, "state")),
		       json_string_value(json_object_get(finding, "name")),
		       json_string_value(json_object_get(finding, "value")));
		advice = json_string_value(json_object_get(finding, "advice"));
		if (advice)
			printf("                       -> %s\n", advice);
	}
}

static int run(const struct kvk_cli_verb *verb, int argc, char **argv)
{
	static const struct kvk_cli_option options[] = { { .name = NULL } };
	struct kvk_doctor doctor = { .worst = KVK_HEALTH_OK };
	struct kvk_cli_line line;
	int status = kvk_cli_read_line(&line, verb, argc, argv, options, 0, 1, "wants at most one STORE");

	if (status)
		return status;
	doctor.findings = json_array();
	if (!doctor.findings)
		return kvk_cli_fail("not enough memory");
	kvk_doctor_machine(&doctor);
	if (line.count == 1)
		status = examine_store(&doctor, line.words[0]);
	if (status)
		goto out;
	if (line.json)
		status = kvk_cli_print_json(json_pack("{s:s, s:O}", "worst", words[doctor.worst], "findings",
						      doctor.findings));
	else
		print_findings(&doctor);
	if (!status && doctor.worst == KVK_HEALTH_BAD)
		status = KVK_EXIT_FAILED;
out:
	json_decref(doctor.findings);
	return status;
}

const struct kvk_cli_verb kvk_cli_doctor = {
	.name = "doctor",
	.arguments = "[STORE] [--json]",
	.summary = "tell what this machine and a directory can do, and what to change",
	.help = "  --json                an object: worst, and findings with part, name, state, value, advice\n\n"
		"Each line is ok, warn (works, but worse than it could) or bad; the exit status is 1 if one is bad.\n"
		"A directory without a store is tried with a small one in a folder of its own, which is removed.\n",
	.run = run,
};
