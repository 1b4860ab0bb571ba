/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include <stdio.h>
#include <string.h>

static const struct kvk_cli_verb *const verbs[] = {
	&kvk_cli_put, &kvk_cli_get, &kvk_cli_has, &kvk_cli_rm, &kvk_cli_ls, &kvk_cli_stat, &kvk_cli_verify,
	&kvk_cli_df, &kvk_cli_cap, &kvk_cli_quota, &kvk_cli_evict, &kvk_cli_purge, &kvk_cli_fsck, &kvk_cli_doctor,
	&kvk_cli_namespace, &kvk_cli_replay, &kvk_cli_simulate, &kvk_cli_bench,
};

#define VERB_COUNT (sizeof(verbs) / sizeof(verbs[0]))

static const struct kvk_cli_verb *find_verb(const char *name)
{
	for (size_t i = 0; i < VERB_COUNT; i++) {
		if (!strcmp(verbs[i]->name, name))
			return verbs[i];
	}
	return NULL;
}

static void print_verbs(FILE *out)
{
	fputs("usage: kvkeep VERB STORE ...\n\n"
	      "Keeps the KV cache of LLM inference on disk and proves every hit.\n\n", out);
	for (size_t i = 0; i < VERB_COUNT; i++)
		fprintf(out, "  %-10s %s\n", verbs[i]->name, verbs[i]->summary);
	fputs("  help       print this, or all about one verb\n\n"
	      "STORE is a directory, or JSON that describes a store, or @file with such JSON. A directory that does not\n"
	      "exist is made by the verbs that write. KEY is text, model@rank@group@hash[@salt] as engines\n"
	      "write it, or any other; hex:DIGITS gives raw bytes. Every verb takes --json and --help.\n"
	      "Exit status: 0 done, 1 not found or a check failed, 2 usage.\n", out);
}

static int help_verb(int argc, char **argv)
{
	const struct kvk_cli_verb *verb;

	if (argc < 2) {
		print_verbs(stdout);
		return KVK_EXIT_DONE;
	}
	if (argc > 2) {
		fprintf(stderr, "kvkeep: help takes one verb, and '%s' is one more\n", argv[2]);
		return KVK_EXIT_USAGE;
	}
	verb = find_verb(argv[1]);
	if (!verb) {
		fprintf(stderr, "kvkeep: there is no verb '%s'; `kvkeep help` lists them\n", argv[1]);
		return KVK_EXIT_USAGE;
	}
	return kvk_cli_help(verb);
}

static int version(void)
{
	printf("kvkeep %d.%d.%d (library %s)\n", KVK_VERSION_MAJOR, KVK_VERSION_MINOR, KVK_VERSION_PATCH,
	       kvk_version());
	return KVK_EXIT_DONE;
}

int main(int argc, char **argv)
{
	const struct kvk_cli_verb *verb;
	char name[32];

	if (argc < 2) {
		print_verbs(stderr);
		return KVK_EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V"))
		return kvk_cli_finish(version());
	if (!strcmp(argv[1], "help") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return kvk_cli_finish(help_verb(argc - 1, argv + 1));
	verb = find_verb(argv[1]);
	if (!verb) {
		fprintf(stderr, "kvkeep: there is no verb '%s'; `kvkeep help` lists them\n", argv[1]);
		return KVK_EXIT_USAGE;
	}
	snprintf(name, sizeof(name), "kvkeep %s", verb->name);
	argv[1] = name;
	return kvk_cli_finish(verb->run(verb, argc - 1, argv + 1));
}
