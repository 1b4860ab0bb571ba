/* SPDX-License-Identifier: Apache-2.0 */
/* TRACE, as verbs take it. */
#ifndef KVK_CLI_LOAD_TRACE_H
#define KVK_CLI_LOAD_TRACE_H

#include "cli.h"
#include "trace.h"

#define KVK_CLI_TRACE_HELP \
	"TRACE is a file of JSON lines (timestamp, input_length, output_length, hash_ids: blocks of 512\n" \
	"tokens in prefix order), - for standard input, or chats that are made up:\n" \
	"  chat:users=N,turns=N[,systems=4][,system=2048][,prompt=256][,reply=512][,block=512][,seed=N]\n" \
	"each user asking turns times, with one of `systems` system prompts of `system` tokens before all.\n\n"

/*
 * Reads or makes up to `limit` requests (0: all), at least one; seed is that of chats. *trace must be zeros and is ended with
 * kvk_trace_release() whatever the outcome. 0, or an enum kvk_exit after saying what is wrong.
 */
int kvk_cli_load_trace(struct kvk_trace *trace, const struct kvk_cli_verb *verb, const char *argument, uint64_t limit,
		       uint64_t seed);

#endif
