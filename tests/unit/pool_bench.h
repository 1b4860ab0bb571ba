/* SPDX-License-Identifier: Apache-2.0 */
/* A bench whose pool is opened and closed while its medium stays. */
#ifndef KVK_TESTS_UNIT_POOL_BENCH_H
#define KVK_TESTS_UNIT_POOL_BENCH_H

#include "adapter/pool/pool.h"
#include "bent_bed.h"

#define FIRST "pool-00000.slots"
#define SECOND "pool-00001.slots"
#define PATH "backend_params.file_path"

/* Opens or does not, with the right words; is closed again unless it stays. */
static inline void try_open(struct bench *bench, int expected, const char *option, const char *word, bool stays)
{
	struct kvk_error error = { .struct_bytes = sizeof(error) };
	int err = bench_try_pool(bench, &error);

	if (err != expected || strcmp(error.option, option ? option : "") || (word && !strstr(error.text, word)))
		fail_msg("%d, option \"%s\": %s; wanted %d, \"%s\"", err, error.option, error.text, expected, option ? option : "");
	assert_int_equal(error.text[0] != '\0', err != 0);
	if (err)
		assert_null(bench->adapter);
	else if (!stays)
		bench_close_adapter(bench);
	if (err || !stays)
		assert_int_equal(bench->bent.places, 0);
}

static inline void begin(struct bench *bench, uint64_t slot_bytes, uint64_t slots)
{
	bench_open(bench, KVK_DURABILITY_NONE, KVK_NAMING_KVKEEP);
	bench->shape = (struct kvk_pool_shape){
		.slot_bytes = slot_bytes, .slots = slots, .file_slots = BENCH_FILE_SLOTS, .opens = 1,
	};
	bench->options.pool = &bench->shape;
}

static inline struct kvk_slots slots_of(struct bench *bench)
{
	struct kvk_slots slots;

	bench->adapter->ops->slots(bench->adapter, &slots);
	return slots;
}

static inline void ends_early(struct bent *bent, struct kvk_xfer *xfer)
{
	xfer->result = 0;
}

#endif
