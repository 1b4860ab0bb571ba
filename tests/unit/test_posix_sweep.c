/* SPDX-License-Identifier: Apache-2.0 */
/* Temporary files of who lives, whatever they are made for, and others who sweep. */
#include "support/skip.h"

#include <stdlib.h>
#include <unistd.h>

#include "format/format.h"
#include "posix_bench.h"

/* Somebody else, who sweeps whatever temporary file he finds in a folder. */
static struct kvk_backend *sweeper;
static const char *swept_folder;
static uint32_t swept;

static void sweep_all(void)
{
	struct kvk_names names = { 0 };
	char path[KVK_NAME_BYTES_MAX];

	assert_int_equal(sweeper->ops->list(sweeper, swept_folder, &names), 0);
	for (uint32_t i = 0; i < names.count; i++) {
		snprintf(path, sizeof(path), "%s/%s", swept_folder, names.names[i]);
		if (!strncmp(names.names[i], ".tmp-", 5) && !sweeper->ops->sweep(sweeper, path))
			swept++;
	}
	kvk_names_release(&names);
}

static int sweeping_renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
	sweep_all();
	return kvk_posix_sys_real.renameat2(from_fd, from, to_fd, to, flags);
}

/* An object that is to replace a damaged one, a small file that is saved, what is tried at open: each is locked, and by who lives. */
static void test_sweep_by_others_spares_all_of_a_living_writer(void **state)
{
	struct bench *bench = *state;
	struct kvk_backend_options options = options_for(bench->root);
	struct kvk_backend *late;
	struct kvk_place *place;

	options.writer_id = 0x5678;
	assert_int_equal(kvk_backend_posix.open(&sweeper, &options, NULL), 0);
	swept = 0;

	swept_folder = "ab";
	place = create(bench, OBJECT);
	assert_int_equal(place_op(bench, KVK_XFER_PUBLISH, place, "ab/.tmp-0000000000001234-77"), 0);
	sweep_all();
	assert_int_equal(swept, 0);
	assert_int_equal(place_op(bench, KVK_XFER_CLOSE, place, NULL), 0);
	sweep_all();
	assert_int_equal(swept, 1);

	/* Each of these two is the first that its writer does: he holds nothing yet. */
	swept = 0;
	swept_folder = ".kvkeep";
	kvk_backend_posix.close(bench->backend);
	open_backend(bench);
	bench->sys.renameat2 = sweeping_renameat2;
	assert_int_equal(bench->backend->ops->save_file(bench->backend, "saved", "text", 4, false), 0);
	options.writer_id = 0x9abc;
	assert_int_equal(kvk_backend_posix.open(&late, &options, NULL), 0);
	assert_int_equal(swept, 0);
	assert_int_equal(late->caps.exchange, bench->backend->caps.exchange);
	kvk_backend_posix.close(late);
	kvk_backend_posix.close(sweeper);
}

static void sweep_by_both(struct bench *bench)
{
	sweep_all();
	sweeper = bench->backend;
	sweep_all();
}

/* What is put aside may be another's, and nobody has it locked: it is his who put it there, as long as he lives, and neither others nor he
 * himself sweep it. */
static void test_what_is_put_aside_stays_while_its_writer_lives(void **state)
{
	static const char moved[] = "ab/.tmp-0000000000001234-1.aside", exchanged[] = "ab/.tmp-0000000000001234-2.aside";
	struct bench *bench = *state;
	struct kvk_backend_options options = options_for(bench->root);
	struct kvk_backend *other;
	struct kvk_place *place;

	options.writer_id = 0x5678;
	assert_int_equal(kvk_backend_posix.open(&other, &options, NULL), 0);
	swept = 0;
	swept_folder = "ab";
	assert_int_equal(kvk_posix_of(bench->backend)->writer_id, 0x1234);

	assert_int_equal(put(bench, OBJECT, "sound"), 0);
	assert_int_equal(name_op(bench, KVK_XFER_MOVE, OBJECT, moved), 0);
	sweeper = other;
	sweep_by_both(bench);
	assert_int_equal(swept, 0);
	assert_int_equal(name_op(bench, KVK_XFER_MOVE, moved, OBJECT), 0);
	assert_content(bench, OBJECT, "sound");

	place = create(bench, OBJECT);
	assert_int_equal(place_op(bench, KVK_XFER_PUBLISH, place, exchanged), 0);
	assert_int_equal(name_op(bench, KVK_XFER_EXCHANGE, exchanged, OBJECT), 0);
	assert_int_equal(place_op(bench, KVK_XFER_CLOSE, place, NULL), 0);
	sweeper = other;
	sweep_by_both(bench);
	assert_int_equal(swept, 0);
	assert_content(bench, exchanged, "sound");

	/* He ends: what he left is swept. */
	kvk_backend_posix.close(bench->backend);
	sweeper = other;
	sweep_all();
	assert_int_equal(swept, 1);
	kvk_backend_posix.close(other);
	open_backend(bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_sweep_by_others_spares_all_of_a_living_writer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_is_put_aside_stays_while_its_writer_lives, setup, teardown),
	};

	return cmocka_run_group_tests_name("posix_sweep", tests, NULL, NULL);
}
