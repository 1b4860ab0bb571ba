/* SPDX-License-Identifier: Apache-2.0 */
/* Findings of the doctor: what is, whether that is well, and what to change. */
#ifndef KVK_CLI_DOCTOR_H
#define KVK_CLI_DOCTOR_H

#include <stdbool.h>

#include <jansson.h>

enum kvk_health {
	KVK_HEALTH_OK = 0,
	KVK_HEALTH_WARN = 1,       /* works, but worse than it could */
	KVK_HEALTH_BAD = 2,        /* does not work, or not safely */
};

struct kvk_doctor {
	json_t *findings;          /* array of {"part", "name", "state", "value", "advice"} */
	const char *part;          /* "machine" or "directory": what is being looked at */
	bool on_disk;              /* the store lies in a directory */
	enum kvk_health worst;
};

/* Notes one finding. advice says what to change; NULL where nothing is. */
void kvk_doctor_note(struct kvk_doctor *doctor, enum kvk_health health, const char *name, const char *advice,
		     const char *format, ...) __attribute__((format(printf, 5, 6)));

/* Kernel, io_uring, limits, memory, processors, clock. */
void kvk_doctor_machine(struct kvk_doctor *doctor);

/* Owner, mode, file system, room: what can be seen of a directory without opening a store. */
void kvk_doctor_directory(struct kvk_doctor *doctor, const char *directory);

#endif
