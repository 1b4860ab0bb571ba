/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a fuzz target provides. Built with -fsanitize=fuzzer, libFuzzer drives it; linked with driver.c, a program that
 * replays files and mutates the target's own seeds for a moment, so that it runs in every test run:
 *
 *   clang -fsanitize=fuzzer,address,undefined -Iinclude -Isrc fuzz_footer.c ... && ./a.out CORPUS/
 *   fuzz_footer [--runs N] [--seed N] [FILE...]
 */
#ifndef KVK_TESTS_FUZZ_H
#define KVK_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Writes the nth starting input and returns its length; 0 when there are no more. */
size_t kvk_fuzz_seed(unsigned nth, uint8_t *data, size_t room);

/* Ends the program, so that the driver and libFuzzer both keep the input. */
#define FUZZ_ASSERT(condition) ((condition) ? (void)0 : __builtin_trap())

#endif
