/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A medium in memory, with the semantics of a POSIX file system as the backend interface shows them. It starts
 * with nothing but the folders of `.kvkeep/`. What `path` of the options means:
 *
 *	NULL              a medium of its own without a limit, gone at close()
 *	decimal digits    the same with a size: bytes beyond it end with -ENOSPC
 *	anything else     the medium of that name, shared by all who open it in this process and kept over
 *	                  close(), so that a store can be opened again
 */
#ifndef KVK_BACKEND_RAM_RAM_H
#define KVK_BACKEND_RAM_RAM_H

/* The next open of name starts empty. Whoever has the old medium open keeps it until close(). */
void kvk_backend_ram_forget(const char *name);

#endif
