/* SPDX-License-Identifier: Apache-2.0 */
/* A doubly linked list whose links live in its members. */
#ifndef KVK_UTIL_LIST_H
#define KVK_UTIL_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct kvk_link {
	struct kvk_link *prev;
	struct kvk_link *next;
};

#define kvk_container_of(ptr, type, member) \
	((type *)(void *)((char *)(ptr) - offsetof(type, member)))

static inline void kvk_list_init(struct kvk_link *head)
{
	head->prev = head;
	head->next = head;
}

static inline bool kvk_list_empty(const struct kvk_link *head)
{
	return head->next == head;
}

static inline void kvk_list_push(struct kvk_link *head, struct kvk_link *link)
{
	link->prev = head->prev;
	link->next = head;
	head->prev->next = link;
	head->prev = link;
}

static inline void kvk_list_push_front(struct kvk_link *head, struct kvk_link *link)
{
	kvk_list_push(head->next, link);
}

/* Leaves the link pointing to itself, so that removing it again is harmless. */
static inline void kvk_list_remove(struct kvk_link *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
	kvk_list_init(link);
}

static inline struct kvk_link *kvk_list_first(const struct kvk_link *head)
{
	return kvk_list_empty(head) ? NULL : head->next;
}

static inline struct kvk_link *kvk_list_pop(struct kvk_link *head)
{
	struct kvk_link *link = kvk_list_first(head);

	if (link)
		kvk_list_remove(link);
	return link;
}

/* Moves all members of from to the end of head. */
static inline void kvk_list_splice(struct kvk_link *head, struct kvk_link *from)
{
	if (kvk_list_empty(from))
		return;
	from->next->prev = head->prev;
	head->prev->next = from->next;
	from->prev->next = head;
	head->prev = from->prev;
	kvk_list_init(from);
}

#endif
