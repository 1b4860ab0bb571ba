/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a test did, for docs/proof.md: a line that scripts/proof reads.
 *
 *   # proof: row=5 count=180 unit=cuts wrong=0 rejected=12
 *
 * It is said once at the end, after the checks or together with what they judge: of a test that failed before there is no
 * line, and its run counts as failed.
 */
#ifndef KVK_TESTS_SUPPORT_PROOF_H
#define KVK_TESTS_SUPPORT_PROOF_H

#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

/* row: of the table in docs/proof.md. */
static inline void proof_tell(unsigned row, uint64_t count, const char *unit, uint64_t wrong)
{
	printf("# proof: row=%u count=%" PRIu64 " unit=%s wrong=%" PRIu64 "\n", row, count, unit, wrong);
	fflush(stdout);
}

/* more: further `name=number` with a blank between them, as printf makes them. */
__attribute__((format(printf, 5, 6)))
static inline void proof_tell_more(unsigned row, uint64_t count, const char *unit, uint64_t wrong, const char *more, ...)
{
	va_list arguments;

	printf("# proof: row=%u count=%" PRIu64 " unit=%s wrong=%" PRIu64 " ", row, count, unit, wrong);
	va_start(arguments, more);
	vprintf(more, arguments);
	va_end(arguments);
	printf("\n");
	fflush(stdout);
}

#endif
