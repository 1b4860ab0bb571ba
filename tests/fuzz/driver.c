/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzz target where libFuzzer is not: over its corpus, and over random changes of that.
 *
 *   fuzz_footer [--runs N] [--seed N]     the corpus, then N changed inputs
 *   fuzz_footer FILE...                   these alone
 */
#include "fuzz.h"
#include "support/proof.h"

#include <dirent.h>
#include <limits.h>

enum { INPUT_BYTES_MAX = 1 << 17 };

struct input {
	char *path;
	uint8_t *data;
	size_t bytes;
};

static struct input *inputs;
static size_t input_count;
static uint64_t random_state;

static uint32_t random_below(uint32_t limit)
{
	random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)((random_state >> 33) % limit);
}

/* ---- the corpus --------------------------------------------------------------------------------- */

static bool add_input(const char *path)
{
	FILE *stream = fopen(path, "rb");
	struct input *grown = realloc(inputs, (input_count + 1) * sizeof(*inputs));
	uint8_t *data = malloc(INPUT_BYTES_MAX);

	if (!stream || !grown || !data) {
		perror(path);
		return false;
	}
	inputs = grown;
	inputs[input_count++] = (struct input){ strdup(path), data, fread(data, 1, INPUT_BYTES_MAX, stream) };
	fclose(stream);
	return true;
}

static int by_path(const void *left, const void *right)
{
	return strcmp(((const struct input *)left)->path, ((const struct input *)right)->path);
}

/* In the order of their names, so that a seed makes the same run everywhere. */
static bool add_folder(const char *path)
{
	DIR *folder = opendir(path);
	struct dirent *entry;
	char file[PATH_MAX];
	bool good = true;

	if (!folder) {
		perror(path);
		return false;
	}
	while (good && (entry = readdir(folder))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
		good = add_input(file);
	}
	closedir(folder);
	if (input_count)
		qsort(inputs, input_count, sizeof(*inputs), by_path);
	return good;
}

/* ---- changes ------------------------------------------------------------------------------------ */

static size_t cut_in(uint8_t *data, size_t bytes, size_t at, const uint8_t *piece, size_t piece_bytes)
{
	if (bytes + piece_bytes > INPUT_BYTES_MAX)
		return bytes;
	memmove(data + at + piece_bytes, data + at, bytes - at);
	memcpy(data + at, piece, piece_bytes);
	return bytes + piece_bytes;
}

/* A piece of any input of the corpus. */
static size_t splice(uint8_t *data, size_t bytes, size_t at)
{
	const struct input *other = &inputs[random_below((uint32_t)input_count)];
	size_t from, piece;

	if (other->bytes == 0)
		return bytes;
	from = random_below((uint32_t)other->bytes);
	piece = 1 + random_below(64);
	return cut_in(data, bytes, at, other->data + from, piece < other->bytes - from ? piece : other->bytes - from);
}

/* One to eight changes: a bit, a byte, a number at an edge, a piece cut out, doubled, moved or of another input. */
static size_t mutate(uint8_t *data, size_t bytes)
{
	static const uint32_t edges[] = { 0, 1, 255, 256, 4095, 4096, 65535, 65536, 1u << 20, 1u << 31, UINT32_MAX };
	uint32_t changes = 1 + random_below(8);

	while (changes-- > 0 && bytes > 0) {
		uint32_t at = random_below((uint32_t)bytes), piece = 1 + random_below(64), value;

		if (piece > bytes - at)
			piece = (uint32_t)(bytes - at);
		switch (random_below(7)) {
		case 0:
			data[at] ^= (uint8_t)(1u << random_below(8));
			break;
		case 1:
			data[at] = (uint8_t)random_below(256);
			break;
		case 2:
			value = edges[random_below(sizeof(edges) / sizeof(edges[0]))];
			memcpy(data + at, &value, piece < 4 ? piece : 4);
			break;
		case 3:
			memmove(data + at, data + at + piece, bytes - at - piece);
			bytes -= piece;
			break;
		case 4:
			if (bytes + piece > INPUT_BYTES_MAX)
				break;
			memmove(data + at + piece, data + at, bytes - at);
			bytes += piece;
			break;
		case 5:
			memmove(data + random_below((uint32_t)(bytes - piece + 1)), data + at, piece);
			break;
		default:
			bytes = splice(data, bytes, at);
			break;
		}
	}
	return bytes;
}

/* ---- runs --------------------------------------------------------------------------------------- */

/* The target gets memory of exactly its input's length, so that a sanitizer sees the first byte too far. */
static void run(const uint8_t *data, size_t bytes)
{
	uint8_t *exact = malloc(bytes ? bytes : 1);

	if (!exact)
		abort();
	memcpy(exact, data, bytes);
	LLVMFuzzerTestOneInput(exact, bytes);
	free(exact);
}

static void run_changed(unsigned long runs)
{
	static uint8_t data[INPUT_BYTES_MAX];

	for (unsigned long i = 0; i < runs; i++) {
		const struct input *input = &inputs[i % input_count];

		memcpy(data, input->data, input->bytes);
		run(data, mutate(data, input->bytes));
	}
}

int main(int argc, char **argv)
{
	unsigned long runs = 20000, seed = 1;
	bool files = false;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--runs") == 0 && i + 1 < argc)
			runs = strtoul(argv[++i], NULL, 0);
		else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
			seed = strtoul(argv[++i], NULL, 0);
		else if (add_input(argv[i]))
			files = true;
		else
			return 2;
	}
	if (!files && !add_folder(FUZZ_CORPUS))
		return 2;
	/* An empty input is always among them, and the corpus never is empty. */
	run((const uint8_t *)"", 0);
	for (size_t i = 0; i < input_count; i++)
		run(inputs[i].data, inputs[i].bytes);
	runs = files ? 0 : runs;
	printf("%s: seed %lu, %lu runs from a corpus of %zu\n", argv[0], seed, runs, input_count);
	fflush(stdout);                    /* the seed must be known when a run does not come back */
	random_state = seed;
	FUZZ_ASSERT(input_count > 0);
	run_changed(runs);
	proof_tell(11, runs + input_count + 1, "inputs", 0);
	for (size_t i = 0; i < input_count; i++) {
		free(inputs[i].path);
		free(inputs[i].data);
	}
	free(inputs);
	return 0;
}
