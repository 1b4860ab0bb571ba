/* SPDX-License-Identifier: Apache-2.0 */
/* Crash states of a record: what reached the medium, drawn from a seed. */
#include "model_fs.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What lies where data should be and is not. */
enum fill { FILL_ZEROS = 0, FILL_OTHERS, FILL_ANOTHER, FILL_GARBAGE, FILLS };

#define SECTORS_MAX (MODEL_FILE_BYTES_MAX / MODEL_SECTOR_BYTES)
#define ALL_SECTORS ((1u << MODEL_PAGE_SECTORS) - 1)
#define ROOT 1u

static uint64_t mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

/* Each question has a number of its own, so that no answer depends on how many were asked before. */
enum question { ASK_MODE = 1, ASK_PIVOT, ASK_NAME, ASK_HALVES, ASK_PAGE, ASK_TORN, ASK_SIZE, ASK_FILE, ASK_FILL, ASK_SOURCE };

static uint64_t draw(const struct model_state *state, enum question question, uint64_t of)
{
	return mix(state->seed ^ mix(of << 8 | question));
}

const char *model_mode_name(enum model_mode mode)
{
	static const char *const names[] = {
		"any", "most", "few", "ordered", "all but one", "only one", "names first", "sizes first", "data first", "files whole",
	};

	return names[mode];
}

/* ---- what reached the medium ------------------------------------------------------------------------ */

static bool one_of(const struct model_state *state, enum question question, uint64_t of)
{
	uint64_t drawn = draw(state, question, of);

	return state->mode == MODEL_MOST ? drawn % 16 > 0 : state->mode == MODEL_FEW ? drawn % 16 == 0 : drawn % 2 == 0;
}

static bool name_reached(const struct model_state *state, uint32_t op, uint32_t change)
{
	switch (state->mode) {
	case MODEL_ORDERED:
		return op < state->pivot;
	case MODEL_ALL_BUT_ONE:
		return op != state->pivot;
	case MODEL_ONLY_ONE:
		return op == state->pivot;
	case MODEL_NAMES_FIRST:
	case MODEL_SIZES_FIRST:
	case MODEL_FILES_WHOLE:
		return true;
	case MODEL_DATA_FIRST:
		return false;
	default:
		return one_of(state, ASK_NAME, (uint64_t)op << 1 | change);
	}
}

static bool size_reached(const struct model_state *state, uint32_t op)
{
	switch (state->mode) {
	case MODEL_ORDERED:
		return op < state->pivot;
	case MODEL_ALL_BUT_ONE:
		return op != state->pivot || draw(state, ASK_SIZE, op) % 2;
	case MODEL_ONLY_ONE:
		return op == state->pivot;
	case MODEL_NAMES_FIRST:
		/* Both were seen: files of no length, and files that are as long as they should be. */
		return draw(state, ASK_FILE, state->record->ops[op].inode) % 2;
	case MODEL_SIZES_FIRST:
	case MODEL_FILES_WHOLE:
		return true;
	case MODEL_DATA_FIRST:
		return false;
	default:
		return one_of(state, ASK_SIZE, op);
	}
}

static uint32_t torn(const struct model_state *state, uint64_t page)
{
	return (uint32_t)draw(state, ASK_TORN, page) & ALL_SECTORS;
}

/* The sectors of a page of a write, a bit each. */
static uint32_t page_reached(const struct model_state *state, uint32_t op, uint64_t page)
{
	uint64_t of = (uint64_t)op << 20 | page;

	switch (state->mode) {
	case MODEL_ORDERED:
		return op < state->pivot ? ALL_SECTORS : op == state->pivot ? torn(state, of) : 0;
	case MODEL_ALL_BUT_ONE:
		if (op != state->pivot)
			return ALL_SECTORS;
		return draw(state, ASK_PAGE, of) % 2 ? torn(state, of) : draw(state, ASK_HALVES, of) % 2 ? ALL_SECTORS : 0;
	case MODEL_ONLY_ONE:
		return op == state->pivot ? ALL_SECTORS : 0;
	case MODEL_NAMES_FIRST:
		return 0;
	case MODEL_DATA_FIRST:
		return ALL_SECTORS;
	case MODEL_FILES_WHOLE:
		return draw(state, ASK_FILE, state->record->ops[op].inode) % 2 ? ALL_SECTORS : 0;
	default:
		if (draw(state, ASK_HALVES, of) % 8 == 0)
			return torn(state, of);
		return one_of(state, ASK_PAGE, of) ? ALL_SECTORS : 0;
	}
}

uint32_t model_synced_at(const struct model_record *record, uint32_t op)
{
	while (op < record->op_count && record->ops[op].kind != MODEL_SYNC_ALL)
		op++;
	return op < record->op_count ? op : MODEL_NEVER;
}

/* ---- names ------------------------------------------------------------------------------------------ */

/* A call that changes two folders may be half there; any other is whole or not at all. */
static bool change_reached(const struct model_state *state, uint32_t op, uint32_t change)
{
	const struct model_op *of = &state->record->ops[op];
	const struct model_name *names = state->record->names;
	bool halves = of->change_count == 2 && names[of->changes[0].name].folder != names[of->changes[1].name].folder &&
		      draw(state, ASK_HALVES, op) % 2;

	for (uint32_t i = 0; i < of->change_count; i++) {
		if ((!halves || i == change) && of->changes[i].safe_at < state->crash)
			return true;
	}
	return name_reached(state, op, halves ? change : 0);
}

static void settle_names(struct model_state *state)
{
	const struct model_record *record = state->record;

	for (uint32_t i = 0; i < record->name_count; i++)
		state->inodes[i] = record->names[i].base;
	for (uint32_t op = 0; op < state->crash; op++) {
		const struct model_op *of = &record->ops[op];

		for (uint32_t i = 0; i < of->change_count; i++) {
			if (change_reached(state, op, i))
				state->inodes[of->changes[i].name] = of->changes[i].inode;
		}
	}
}

static bool can_be_found(const struct model_state *state, uint32_t folder)
{
	while (folder != ROOT) {
		uint32_t name = state->record->inodes[folder].own_name;

		if (state->inodes[name] != folder)
			return false;
		folder = state->record->names[name].folder;
	}
	return true;
}

/* Some call that no sync has covered; else the crash itself. */
static uint32_t choose_pivot(const struct model_state *state)
{
	uint32_t first = state->crash ? (uint32_t)(draw(state, ASK_PIVOT, 0) % state->crash) : 0;

	for (uint32_t n = 0; n < state->crash; n++) {
		uint32_t op = (first + n) % state->crash;
		const struct model_op *of = &state->record->ops[op];

		if (of->kind == MODEL_NAMES ? of->changes[0].safe_at >= state->crash :
		    of->kind <= MODEL_SIZE && of->safe_at >= state->crash)
			return op;
	}
	return state->crash;
}

void model_state_init(struct model_state *state, const struct model_record *record, uint32_t crash, uint64_t seed)
{
	uint32_t *lost;

	*state = (struct model_state){ .record = record, .crash = crash, .seed = seed };
	state->mode = (enum model_mode)(draw(state, ASK_MODE, 0) % MODEL_MODES);
	state->pivot = choose_pivot(state);
	state->inodes = calloc(record->name_count, 2 * sizeof(*state->inodes));
	if (!state->inodes)
		abort();
	settle_names(state);
	lost = state->inodes + record->name_count;
	for (uint32_t i = 1; i < record->name_count; i++)
		lost[i] = state->inodes[i] && !can_be_found(state, record->names[i].folder);
	for (uint32_t i = 1; i < record->name_count; i++)
		state->inodes[i] = lost[i] ? 0 : state->inodes[i];
}

void model_state_free(struct model_state *state)
{
	free(state->inodes);
	state->inodes = NULL;
}

/* ---- contents --------------------------------------------------------------------------------------- */

struct contents {
	uint8_t *data;                 /* NULL: only the number is wanted */
	uint64_t bytes;
	uint64_t number;
	bool misses;                   /* some data is not there ... */
	uint8_t there[SECTORS_MAX / 8];        /* ... and of these sectors something is */
	uint8_t missing[SECTORS_MAX / 8];
};

static void mark(uint8_t *set, uint64_t sector)
{
	set[sector / 8] |= (uint8_t)(1u << sector % 8);
}

static bool is_marked(const uint8_t *set, uint64_t sector)
{
	return set[sector / 8] >> sector % 8 & 1;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Bytes from to end of a write, which lie in one page. */
static void write_page(struct contents *contents, const struct model_op *op, uint64_t from, uint64_t end, uint32_t sectors)
{
	while (from < end) {
		uint64_t sector = from / MODEL_SECTOR_BYTES, to = min_u64((sector + 1) * MODEL_SECTOR_BYTES, end);

		if (sectors >> sector % MODEL_PAGE_SECTORS & 1) {
			memcpy(contents->data + from, op->data + (from - op->offset_bytes), to - from);
			mark(contents->there, sector);
		} else {
			mark(contents->missing, sector);
		}
		from = to;
	}
}

static void write_op(const struct model_state *state, struct contents *contents, uint32_t index)
{
	const struct model_op *op = &state->record->ops[index];
	bool safe = op->safe_at < state->crash;
	uint64_t from = op->offset_bytes, end = op->offset_bytes + op->bytes;

	if (safe || (op->grows && size_reached(state, index)))
		contents->bytes = op->grows && op->length_bytes > contents->bytes ? op->length_bytes : contents->bytes;
	contents->number = mix(contents->number ^ contents->bytes);
	if (op->kind == MODEL_SIZE)
		return;
	while (from < end) {
		uint64_t page = from / MODEL_PAGE_BYTES, to = min_u64((page + 1) * MODEL_PAGE_BYTES, end);
		uint32_t sectors = safe ? ALL_SECTORS : page_reached(state, index, page);

		contents->misses |= sectors != ALL_SECTORS;
		contents->number = mix(contents->number ^ (uint64_t)index << 32 ^ page << 8 ^ sectors);
		if (contents->data)
			write_page(contents, op, from, to, sectors);
		from = to;
	}
}

/* Some file that was written before; 0: none. */
static uint32_t choose_source(const struct model_state *state, uint64_t of)
{
	uint32_t first = state->crash ? (uint32_t)(draw(state, ASK_SOURCE, of) % state->crash) : 0;

	for (uint32_t n = 0; n < state->crash && n < 64; n++) {
		const struct model_op *op = &state->record->ops[(first + n) % state->crash];

		if (op->kind == MODEL_WRITE)
			return op->inode;
	}
	return 0;
}

static void copy_from(const struct model_state *state, uint32_t source, uint8_t *data, uint64_t at, uint64_t bytes)
{
	const struct model_inode *inode = &state->record->inodes[source];

	if (at < inode->base_bytes)
		memcpy(data + at, inode->base + at, min_u64(bytes, inode->base_bytes - at));
	for (uint32_t i = inode->first_op; i < state->crash; i = state->record->ops[i].next) {
		const struct model_op *op = &state->record->ops[i];
		uint64_t from = at > op->offset_bytes ? at : op->offset_bytes;
		uint64_t end = min_u64(at + bytes, op->offset_bytes + op->bytes);

		if (op->kind == MODEL_WRITE && from < end)
			memcpy(data + from, op->data + (from - op->offset_bytes), end - from);
	}
}

/* Where nothing was there before and what was written is not. */
static void fill(const struct model_state *state, uint32_t inode, struct contents *contents)
{
	enum fill how = (enum fill)(draw(state, ASK_FILL, inode) % FILLS);
	uint64_t sectors = (contents->bytes + MODEL_SECTOR_BYTES - 1) / MODEL_SECTOR_BYTES;
	uint32_t source = how == FILL_ANOTHER ? choose_source(state, inode) : 0;

	contents->number = mix(contents->number ^ (how == FILL_ANOTHER ? source : how == FILL_ZEROS ? 0 : state->seed | 1));
	for (uint64_t sector = 0; contents->data && how != FILL_ZEROS && sector < sectors; sector++) {
		uint64_t at = sector * MODEL_SECTOR_BYTES;

		if (!is_marked(contents->missing, sector) || is_marked(contents->there, sector))
			continue;
		if (how == FILL_GARBAGE) {
			for (uint64_t i = 0; i < MODEL_SECTOR_BYTES; i += 8)
				memcpy(contents->data + at + i, &(uint64_t){ mix(state->seed ^ at ^ i) }, 8);
			continue;
		}
		if (how == FILL_OTHERS)
			source = choose_source(state, (uint64_t)inode << 32 | at / MODEL_PAGE_BYTES);
		if (source)
			copy_from(state, source, contents->data, at, MODEL_SECTOR_BYTES);
	}
}

uint64_t model_contents(const struct model_state *state, uint32_t inode, uint8_t *data, uint64_t *bytes_ret)
{
	const struct model_inode *of = &state->record->inodes[inode];
	struct contents contents;
	uint64_t written = of->length_bytes > of->base_bytes ? of->length_bytes : of->base_bytes;

	contents.data = data;
	contents.bytes = of->base_bytes;
	contents.number = mix(inode);
	contents.misses = false;
	if (data) {
		memset(contents.there, 0, sizeof(contents.there));
		memset(contents.missing, 0, sizeof(contents.missing));
		memset(data, 0, (written + MODEL_SECTOR_BYTES - 1) / MODEL_SECTOR_BYTES * MODEL_SECTOR_BYTES);
		if (of->base_bytes)
			memcpy(data, of->base, of->base_bytes);
		for (uint64_t at = 0; at < of->base_bytes; at += MODEL_SECTOR_BYTES)
			mark(contents.there, at / MODEL_SECTOR_BYTES);
	}
	for (uint32_t i = of->first_op; i < state->crash; i = state->record->ops[i].next)
		write_op(state, &contents, i);
	if (contents.misses)
		fill(state, inode, &contents);
	*bytes_ret = contents.bytes;
	return contents.number;
}

/* ---- making it -------------------------------------------------------------------------------------- */

static void path_of(const struct model_state *state, uint32_t name, const char *root, char path[600])
{
	const struct model_name *of = &state->record->names[name];
	char above[600];

	if (of->folder == ROOT)
		snprintf(above, sizeof(above), "%s", root);
	else
		path_of(state, state->record->inodes[of->folder].own_name, root, above);
	if (snprintf(path, 600, "%s/%s", above, of->text) >= 600)
		abort();
}

static void build_file(const struct model_state *state, uint32_t inode, const char *path, uint8_t *data)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	uint64_t bytes;

	model_contents(state, inode, data, &bytes);
	if (fd < 0 || pwrite(fd, data, bytes, 0) != (ssize_t)bytes || close(fd)) {
		perror(path);
		abort();
	}
}

/* Folders, which are older than what lies in them, first; a file's further names are links. */
void model_build(const struct model_state *state, const char *root)
{
	const struct model_record *record = state->record;
	uint32_t *first = calloc(record->inode_count, sizeof(*first));
	uint8_t *data = malloc(MODEL_FILE_BYTES_MAX);
	char path[600], other[600];

	if (!first || !data)
		abort();
	for (uint32_t i = ROOT + 1; i < record->inode_count; i++) {
		uint32_t name = record->inodes[i].own_name;

		if (!record->inodes[i].folder || state->inodes[name] != i)
			continue;
		path_of(state, name, root, path);
		if (mkdir(path, 0700))
			abort();
	}
	for (uint32_t i = 1; i < record->name_count; i++) {
		uint32_t inode = state->inodes[i];

		if (!inode || record->inodes[inode].folder)
			continue;
		path_of(state, i, root, path);
		if (first[inode])
			path_of(state, first[inode], root, other);
		if (!first[inode])
			build_file(state, inode, path, data);
		else if (link(other, path))
			abort();
		first[inode] = i;
	}
	free(first);
	free(data);
}

/* ---- for people ------------------------------------------------------------------------------------- */

static void tell_names(const struct model_state *state, uint32_t index)
{
	const struct model_op *op = &state->record->ops[index];

	for (uint32_t i = 0; i < op->change_count; i++)
		fprintf(stderr, "  %s%s is %u%s", i ? "and " : "", state->record->names[op->changes[i].name].text, op->changes[i].inode,
			op->changes[i].safe_at < state->crash ? " (synced)" : change_reached(state, index, i) ? "" : " (not there)");
}

void model_tell(const struct model_state *state)
{
	fprintf(stderr, "crash before call %u of %u, mode %s, pivot %u, seed 0x%llx\n", state->crash, state->record->op_count,
		model_mode_name(state->mode), state->pivot, (unsigned long long)state->seed);
	for (uint32_t i = 0; i < state->crash; i++) {
		const struct model_op *op = &state->record->ops[i];
		static const char *const kinds[] = { "write", "length", "names", "sync file", "sync folder", "sync all" };

		fprintf(stderr, "%5u %s", i, kinds[op->kind]);
		if (op->inode)
			fprintf(stderr, " of %u", op->inode);
		if (op->kind <= MODEL_SIZE)
			fprintf(stderr, ": %llu bytes at %llu%s%s", (unsigned long long)op->bytes, (unsigned long long)op->offset_bytes,
				op->safe_at < state->crash ? " (synced)" : "",
				op->grows && op->safe_at >= state->crash && !size_reached(state, i) ? " (not as long)" : "");
		tell_names(state, i);
		fprintf(stderr, "\n");
	}
}
