/* SPDX-License-Identifier: Apache-2.0 */
/* One object of a list, as ls, stat and verify show it. */
#ifndef KVK_CLI_ENTRY_H
#define KVK_CLI_ENTRY_H

#include <jansson.h>
#include <kvkeep/kvkeep.h>

/* "present", "damaged", ... */
const char *kvk_entry_state(uint32_t state);

/* The model and the salt (tenant) of an entry's key; both empty if it is not in text form. They point into entry. */
void kvk_entry_names(const struct kvk_list_entry *entry, struct kvk_key *model, struct kvk_key *tenant);

/* The KEY argument, or the file's name in parentheses if the key is not known. text: KVK_CLI_KEY_TEXT_BYTES. */
const char *kvk_entry_key(char *text, const struct kvk_list_entry *entry);

json_t *kvk_entry_json(const struct kvk_list_entry *entry, uint64_t now_ns);

/*
 * Reads lists page by page. Pages are kept small enough to be quick and large enough that a page's overhead does
 * not matter: an entry is 2 KiB.
 */
#define KVK_ENTRY_PAGE 256

/* KVK_ENTRY_PAGE entries with their sizes set, to be freed with free(); NULL when memory is short. */
struct kvk_list_entry *kvk_entry_page_new(void);

#endif
