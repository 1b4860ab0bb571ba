/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a fuzz target where libFuzzer is not: over files, and over random changes of the target's seeds. */
#include "fuzz.h"
#include "support/proof.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INPUT_BYTES_MAX = 1 << 17 };

static uint64_t random_state;

static uint32_t random_below(uint32_t limit)
{
	random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)((random_state >> 33) % limit);
}

/* One to eight changes: a bit, a byte, a number at an edge, a piece cut out, doubled or moved. */
static size_t mutate(uint8_t *data, size_t bytes)
{
	static const uint32_t edges[] = { 0, 1, 255, 256, 4095, 4096, 65535, 65536, 1u << 20, 1u << 31, UINT32_MAX };
	uint32_t changes = 1 + random_below(8);

	while (changes-- > 0 && bytes > 0) {
		uint32_t at = random_below((uint32_t)bytes), piece = 1 + random_below(64), value;

		if (piece > bytes - at)
			piece = (uint32_t)(bytes - at);
		switch (random_below(6)) {
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
		default:
			memmove(data + random_below((uint32_t)(bytes - piece + 1)), data + at, piece);
			break;
		}
	}
	return bytes;
}

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

static bool replay(const char *path, uint8_t *data)
{
	FILE *stream = fopen(path, "rb");

	if (!stream) {
		perror(path);
		return false;
	}
	run(data, fread(data, 1, INPUT_BYTES_MAX, stream));
	fclose(stream);
	return true;
}

int main(int argc, char **argv)
{
	static uint8_t data[INPUT_BYTES_MAX];
	unsigned long runs = 20000, seed = 1;
	unsigned seeds = 0, files = 0;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--runs") == 0 && i + 1 < argc)
			runs = strtoul(argv[++i], NULL, 0);
		else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
			seed = strtoul(argv[++i], NULL, 0);
		else if (replay(argv[i], data))
			files++;
		else
			return 2;
	}
	for (size_t bytes; (bytes = kvk_fuzz_seed(seeds, data, sizeof(data))) > 0; seeds++)
		run(data, bytes);
	random_state = seed;
	printf("%s: seed %lu, %lu runs from %u seeds, %u files\n", argv[0], seed, runs, seeds, files);
	fflush(stdout);                    /* the seed must be known when a run does not come back */
	for (unsigned long i = 0; i < runs; i++)
		run(data, mutate(data, kvk_fuzz_seed((unsigned)(i % seeds), data, sizeof(data))));
	proof_tell(11, runs + seeds + files, "inputs", 0);
	return 0;
}
