/* SPDX-License-Identifier: Apache-2.0 */
#include "doctor.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "text.h"

/* One descriptor an object in flight, and as many again kept since lookups. */
#define FILES_GOOD 4096
/* Registered buffers of the store's own memory. */
#define LOCKED_GOOD (UINT64_C(256) << 20)
#define MEMORY_GOOD (UINT64_C(1) << 30)
/* 2024-01-01: no clock that is set says less. */
#define TIME_LEAST 1704067200

/* The first line of a small file, without its newline; empty if it cannot be read. */
static const char *first_line(char *text, int bytes, const char *path)
{
	FILE *file = fopen(path, "re");

	text[0] = '\0';
	if (file) {
		if (!fgets(text, bytes, file))
			text[0] = '\0';
		fclose(file);
	}
	text[strcspn(text, "\n")] = '\0';
	return text;
}

static void note_kernel(struct kvk_doctor *doctor)
{
	struct utsname name;
	unsigned major = 0, minor = 0;

	if (uname(&name))
		return;
	sscanf(name.release, "%u.%u", &major, &minor);
	if (major > 5 || (major == 5 && minor >= 10))
		kvk_doctor_note(doctor, KVK_HEALTH_OK, "kernel", NULL, "%s %s", name.sysname, name.release);
	else
		kvk_doctor_note(doctor, KVK_HEALTH_WARN, "kernel", "use Linux 5.10 or newer: older ones are not tested",
				"%s %s", name.sysname, name.release);
}

/*
 * The call itself tells: containers forbid it with a filter that no file shows, and the sysctl only says why where it is
 * the reason.
 */
static void note_io_uring(struct kvk_doctor *doctor)
{
	struct io_uring_params params = { .flags = 0 };
	char disabled[16];
	long fd = syscall(SYS_io_uring_setup, 8, &params);
	int err = errno;

	if (fd >= 0) {
		close((int)fd);
		kvk_doctor_note(doctor, KVK_HEALTH_OK, "io_uring", NULL, "allowed (features 0x%x)", params.features);
		return;
	}
	first_line(disabled, sizeof(disabled), "/proc/sys/kernel/io_uring_disabled");
	if (err == ENOSYS)
		kvk_doctor_note(doctor, KVK_HEALTH_WARN, "io_uring", "threads do its work, with more CPU; use a kernel "
				"built with CONFIG_IO_URING", "not in this kernel");
	else if (disabled[0] && disabled[0] != '0')
		kvk_doctor_note(doctor, KVK_HEALTH_WARN, "io_uring", "threads do its work, with more CPU; set sysctl "
				"kernel.io_uring_disabled=0, or 1 and add the user to kernel.io_uring_group",
				"forbidden by sysctl kernel.io_uring_disabled=%s", disabled);
	else if (err == EPERM || err == EACCES)
		kvk_doctor_note(doctor, KVK_HEALTH_WARN, "io_uring", "threads do its work, with more CPU; give the "
				"container a seccomp profile with io_uring_setup, io_uring_enter and "
				"io_uring_register", "forbidden, as containers do (%s)", strerror(err));
	else
		kvk_doctor_note(doctor, KVK_HEALTH_WARN, "io_uring", "threads do its work, with more CPU",
				"cannot be used: %s", strerror(err));
}

static void note_limits(struct kvk_doctor *doctor)
{
	char size[KVK_CLI_TEXT_BYTES];
	struct rlimit limit;

	if (!getrlimit(RLIMIT_NOFILE, &limit)) {
		if (limit.rlim_cur >= FILES_GOOD)
			kvk_doctor_note(doctor, KVK_HEALTH_OK, "open files", NULL, "%llu",
					(unsigned long long)limit.rlim_cur);
		else
			kvk_doctor_note(doctor, KVK_HEALTH_WARN, "open files", "raise the limit to 4096 or more: "
					"ulimit -n, LimitNOFILE= of systemd, or --ulimit nofile of a container",
					"%llu (hard limit %llu)", (unsigned long long)limit.rlim_cur,
					(unsigned long long)limit.rlim_max);
	}
	if (getrlimit(RLIMIT_MEMLOCK, &limit))
		return;
	if (limit.rlim_cur == RLIM_INFINITY)
		kvk_doctor_note(doctor, KVK_HEALTH_OK, "locked memory", NULL, "no limit");
	else if (limit.rlim_cur >= LOCKED_GOOD || geteuid() == 0)
		kvk_doctor_note(doctor, KVK_HEALTH_OK, "locked memory", NULL, "%s%s",
				kvk_cli_format_bytes(size, limit.rlim_cur), geteuid() ? "" : ", which does not bind root");
	else
		kvk_doctor_note(doctor, KVK_HEALTH_WARN, "locked memory", "raise it to 256 MiB or more, so that buffers "
				"can be registered: ulimit -l, LimitMEMLOCK= of systemd, or --ulimit memlock",
				"%s", kvk_cli_format_bytes(size, limit.rlim_cur));
}

static uint64_t available_memory(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	unsigned long long kib = 0;
	char line[128];

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
			break;
	}
	if (file)
		fclose(file);
	return kib * 1024;
}

static void note_memory(struct kvk_doctor *doctor)
{
	static const char *const limits[] = {
		"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes",
	};
	uint64_t bytes = available_memory(), limit;
	char text[64], size[KVK_CLI_TEXT_BYTES];
	const char *whose = "";

	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		if (!kvk_cli_parse_count(&limit, first_line(text, sizeof(text), limits[i]), 1, UINT64_MAX) &&
		    limit < bytes) {
			bytes = limit;
			whose = ", the container's limit";
		}
	}
	if (bytes >= MEMORY_GOOD)
		kvk_doctor_note(doctor, KVK_HEALTH_OK, "memory", NULL, "%s%s", kvk_cli_format_bytes(size, bytes), whose);
	else
		kvk_doctor_note(doctor, KVK_HEALTH_WARN, "memory", "a store takes up to 256 MiB for transfers unless "
				"\"memory_mb\" says less", "%s%s", kvk_cli_format_bytes(size, bytes), whose);
}

static void note_processors(struct kvk_doctor *doctor)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set))
		return;
	kvk_doctor_note(doctor, KVK_HEALTH_OK, "processors", NULL, "%d of %ld may be used", CPU_COUNT(&set),
			sysconf(_SC_NPROCESSORS_ONLN));
}

static void note_clock(struct kvk_doctor *doctor)
{
	static const char *const slow[] = { "hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit" };
	struct timex adjust = { .modes = 0 };
	time_t now = time(NULL);
	char source[64];

	first_line(source, sizeof(source), "/sys/devices/system/clocksource/clocksource0/current_clocksource");
	for (size_t i = 0; i < sizeof(slow) / sizeof(slow[0]); i++) {
		if (strcmp(source, slow[i]))
			continue;
		kvk_doctor_note(doctor, KVK_HEALTH_WARN, "clock source", "reading the clock costs a microsecond or more; "
				"boot with tsc, or ask the provider of the virtual machine", "%s", source);
		source[0] = '\0';
	}
	if (source[0])
		kvk_doctor_note(doctor, KVK_HEALTH_OK, "clock source", NULL, "%s", source);
	if (now < TIME_LEAST)
		kvk_doctor_note(doctor, KVK_HEALTH_BAD, "clock", "set the clock: the ages of objects come from it",
				"the year is before 2024");
	else if (adjtimex(&adjust) == TIME_ERROR)
		kvk_doctor_note(doctor, KVK_HEALTH_WARN, "clock", "run chrony or systemd-timesyncd: only the ages of "
				"objects depend on it", "set, but not kept in step with others");
	else
		kvk_doctor_note(doctor, KVK_HEALTH_OK, "clock", NULL, "set and kept in step");
}

void kvk_doctor_machine(struct kvk_doctor *doctor)
{
	doctor->part = "machine";
	note_kernel(doctor);
	note_io_uring(doctor);
	note_limits(doctor);
	note_memory(doctor);
	note_processors(doctor);
	note_clock(doctor);
}
