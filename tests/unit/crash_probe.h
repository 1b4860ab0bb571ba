/* SPDX-License-Identifier: Apache-2.0 */
/* Crash states whose objects are made in the folders of stores that are open, and loaded from there. */
#ifndef KVK_TESTS_UNIT_CRASH_PROBE_H
#define KVK_TESTS_UNIT_CRASH_PROBE_H

#include <ftw.h>

#include "crash_kit.h"

#define SEEN_ROOM (1u << 14)           /* states of a life, and then some: a power of two */
#define PROBES (KIT_SANITIZED ? 2 : 8)
#define RESTING 6

struct probe_file {
	int fd;
	bool there;
	uint64_t bytes;
	char path[400], aside[400];
};

/* A store that is open, and in whose folder objects of states are made. */
struct probe {
	struct bed bed;
	struct model_state state;
	struct probe_file files[KEYS];
	uint64_t numbers[KEYS];        /* what lies there; 0: not known */
	struct job job;
};

/* A store that was opened on a state and counts what is there. */
struct resting {
	struct bed bed;
	bool capped;
	char what[100];
};

struct run {
	struct crashes crashes;
	uint64_t random;
	struct bed bed;                /* the recorded life */
	uint32_t lacks;
	char shape[200];               /* options that all stores of a chain share */
	char more[400];                /* those of the life */
	uint64_t *seen;                /* numbers of states of this life */
	struct probe probes[PROBES];
	uint32_t probe_count;          /* that load */
	struct resting resting[RESTING];
	uint32_t rest_next;
	bool ring;                     /* there is one to be had */
	struct job job;
	uint8_t contents[MODEL_FILE_BYTES_MAX];
};

static inline int remove_one(const char *path, const struct stat *stat, int kind, struct FTW *at)
{
	return remove(path);
}

/* As bed_end(), which has a program remove the folder. */
static inline void end_bed(struct bed *bed)
{
	assert_int_equal(bed_close(bed), 0);
	assert_int_equal(nftw(bed->path, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
	bed->path[0] = '\0';
}

static inline void tell_state(const struct model_state *state, const struct line *line)
{
	model_tell(state);
	fprintf(stderr, "%s is %s\n", line->text, line->name);
}

static inline void check_found(struct run *run, const struct model_state *state, const uint32_t found[KEYS])
{
	for (uint32_t i = 0; i < KEYS; i++) {
		struct line *line = &run->crashes.lines[i];
		uint32_t must = promised_at(&run->crashes, line, state->crash);

		run->crashes.figures.promised += must > 0;
		if (must && (!found[i] || (must != ANY && found[i] != must))) {
			tell_state(state, line);
			fail_msg("%s: found is generation %u, and %u was acknowledged (%u: any)", line->text, found[i], must, ANY);
		}
		if (atomic_load(&bed_wrong_answers)) {
			tell_state(state, line);
			fail_msg("wrong answers");
		}
	}
}

static inline bool is_seen(struct run *run, uint64_t number)
{
	uint32_t at = (uint32_t)number % SEEN_ROOM;

	for (; run->seen[at]; at = (at + 1) % SEEN_ROOM) {
		if (run->seen[at] == number)
			return true;
	}
	run->seen[at] = number;
	return false;
}

/* Files stay, and stay open: what is not there in a state lies aside. */
static inline void make_object(struct run *run, struct probe *probe, uint32_t index, uint32_t inode)
{
	struct probe_file *file = &probe->files[index];
	uint64_t bytes;

	if (file->there != (inode > 0))
		assert_int_equal(inode ? rename(file->aside, file->path) : rename(file->path, file->aside), 0);
	file->there = inode > 0;
	if (!inode)
		return;
	model_contents(&probe->state, inode, run->contents, &bytes);
	assert_int_equal(pwrite(file->fd, run->contents, bytes, 0), bytes);
	if (bytes != file->bytes)
		assert_int_equal(ftruncate(file->fd, (off_t)bytes), 0);
	file->bytes = bytes;
}

/* Takes the answers of all probes. */
static inline void judge_probes(struct run *run)
{
	for (uint32_t i = 0; i < run->probe_count; i++) {
		struct probe *probe = &run->probes[i];

		load_end(&run->crashes, &probe->job);
		check_found(run, &probe->state, probe->job.found);
		model_state_free(&probe->state);
		run->crashes.figures.states++;
	}
	run->probe_count = 0;
}

/* Makes the objects of a state in the next probe, and has those loaded that are others than before; unless the state is known. */
static inline void probe_state(struct run *run, const uint32_t names[KEYS], uint32_t crash, uint64_t seed)
{
	struct probe *probe = &run->probes[run->probe_count];
	uint64_t numbers[KEYS], number = 1, bytes;
	uint32_t changed = 0;

	model_state_init(&probe->state, run->crashes.record, crash, seed);
	for (uint32_t i = 0; i < KEYS; i++) {
		uint32_t inode = probe->state.inodes[names[i]];

		numbers[i] = inode ? model_contents(&probe->state, inode, NULL, &bytes) : 1;
		number = kit_mix(number ^ numbers[i]);
	}
	if (is_seen(run, number | 1)) {
		model_state_free(&probe->state);
		return;
	}
	for (uint32_t i = 0; i < KEYS; i++) {
		if (numbers[i] == probe->numbers[i])
			continue;
		make_object(run, probe, i, probe->state.inodes[names[i]]);
		probe->numbers[i] = numbers[i];
		changed |= 1u << i;
	}
	load_begin(&run->crashes, &probe->job, probe->bed.store, changed, KVK_GET_PEEK);
	if (++run->probe_count == PROBES)
		judge_probes(run);
}

static inline void open_probe(struct run *run, struct probe *probe)
{
	char more[300];

	snprintf(more, sizeof(more), "%s, \"keeper\": false", run->shape);
	bed_begin(&probe->bed, run->ring ? BED_URING : BED_THREADS);
	bed_open(&probe->bed, more);
	for (uint32_t i = 0; i < KEYS; i++) {
		struct probe_file *file = &probe->files[i];

		*file = (struct probe_file){ 0 };
		snprintf(file->path, sizeof(file->path), "%s/%s", probe->bed.path, run->crashes.lines[i].name);
		snprintf(file->aside, sizeof(file->aside), "%s/aside-%u", probe->bed.path, i);
		for (char *slash = file->path + strlen(probe->bed.path) + 1; (slash = strchr(slash, '/')); slash++) {
			*slash = '\0';
			assert_true(mkdir(file->path, 0700) == 0 || errno == EEXIST);
			*slash = '/';
		}
		file->fd = open(file->aside, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		assert_true(file->fd >= 0);
	}
}

static inline void close_probe(struct probe *probe)
{
	for (uint32_t i = 0; i < KEYS; i++)
		close(probe->files[i].fd);
	end_bed(&probe->bed);
}

#endif
