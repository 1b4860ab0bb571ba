/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A modelled file system: what may lie in a folder after the power went.
 *
 * The table below stands between the posix backend and a real folder. It passes every call on, and records those that change
 * something, in one order for all threads. From the recording crash states are made: the power goes before some call, and of
 * each change that no sync had covered by then a seed says whether it reached the medium.
 *
 * What the model allows, for a crash before call c:
 *
 *   - A write, or a change of length, is there for certain if a sync of its file or of everything came after it and before c.
 *     Otherwise each 4 KiB page of a write is there or not, or there in some of its sectors of 512 bytes, and a length is
 *     the new one or one from before, whatever is there of the data: size before data and data before size.
 *   - Where a file is long enough and its data is not there, there is what was there before: bytes written earlier; else zeros,
 *     or blocks of another file, page by page or all of them from one (ext4 with data=writeback), or garbage.
 *   - A name that was given, taken away, moved or exchanged is so for certain if a sync of its folder, or of everything, came after. A
 *     sync of the file is none of its name. Otherwise each of these changes is there or not, whatever their order, also before the
 *     data of what they name. A rename within a folder and an exchange are whole or not at all; a rename from one folder to another
 *     may be half there, with both names or with none. Of changes of one name that are there the last one counts.
 *   - What is in a folder that has no name itself cannot be found: fsync of a folder is none of the folder above.
 *   - The medium tears no sector, and a sync that was answered with success has done it. Modes, owners and times are always there.
 *
 * The rules are those under which applications were found to lose data, and what file systems say of themselves: T. S. Pillai et
 * al., "All File Systems Are Not Created Equal: On the Complexity of Crafting Crash-Consistent Applications", OSDI 2014 (its
 * abstract persistence model: atomicity of what one call changes, order of calls, and directory operations apart from data); J. Mohan et
 * al., "Finding Crash-Consistency Bugs with Bounded Black-Box Crash Testing", OSDI 2018 (what fsync of a file and of a folder persist);
 * fsync(2) ("calling fsync() does not necessarily ensure that the entry in the directory containing the file has also reached disk");
 * Documentation/filesystems/ext4 of Linux (data=ordered, data=writeback, delayed allocation). No file system does all of this:
 * what is safe here is so on each that does a part of it.
 */
#ifndef KVK_TESTS_MODEL_FS_H
#define KVK_TESTS_MODEL_FS_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/posix/sys.h"

#define MODEL_PAGE_BYTES 4096u
#define MODEL_SECTOR_BYTES 512u
#define MODEL_PAGE_SECTORS (MODEL_PAGE_BYTES / MODEL_SECTOR_BYTES)
#define MODEL_NEVER UINT32_MAX
#define MODEL_NAME_BYTES 120
/* Of one file: what is longer is not for this model. */
#define MODEL_FILE_BYTES_MAX (1u << 20)

enum model_kind {
	MODEL_WRITE = 0,               /* bytes of a file; its length too, if that grows */
	MODEL_SIZE,                    /* the length alone */
	MODEL_NAMES,                   /* up to two names */
	MODEL_SYNC_FILE,
	MODEL_SYNC_FOLDER,
	MODEL_SYNC_ALL,
};

/* The inode under a name, from then on; 0: none. */
struct model_change {
	uint32_t name;
	uint32_t inode;
	uint32_t safe_at;              /* the sync that covers it; MODEL_NEVER */
};

struct model_op {
	enum model_kind kind;
	uint32_t inode;                /* of NAMES: none */
	uint32_t next;                 /* op of the same inode; MODEL_NEVER */
	uint32_t safe_at;              /* of WRITE and SIZE: as of a change */
	uint64_t offset_bytes;
	uint64_t bytes;
	uint8_t *data;
	uint64_t length_bytes;         /* of the file, after it */
	bool grows;
	uint32_t change_count;
	struct model_change changes[2];
};

struct model_name {
	uint32_t folder;
	uint32_t base;                 /* the inode at the beginning; 0: none */
	uint32_t now;
	char text[MODEL_NAME_BYTES];
};

struct model_inode {
	bool folder;
	uint32_t own_name;             /* of a folder: where it lies; the root has none */
	uint32_t first_op, last_op;
	uint64_t length_bytes;         /* now */
	uint8_t *base;                 /* at the beginning */
	uint64_t base_bytes;
};

/* The root is inode 1; of all three the first is not used. */
struct model_record {
	struct model_op *ops;
	struct model_name *names;
	struct model_inode *inodes;
	uint32_t op_count, op_room;
	uint32_t name_count, name_room;
	uint32_t inode_count, inode_room;
};

/* Ways of publishing that the recorded medium does not have. */
enum model_lacks {
	MODEL_LACKS_TMPFILE = 1u << 0,
	MODEL_LACKS_EXCHANGE = 1u << 1,
};

/* ---- recording: one at a time ---------------------------------------------------------------------- */

/* What lies below root now is on the medium. Backends that open from now on with model_table() on this root are recorded. */
void model_begin(const char *root, uint32_t lacks);
/* Nothing records any more. The record is the caller's, model_free() ends it. */
struct model_record *model_end(void);
void model_free(struct model_record *record);

/* For kvk_posix_sys_use(). */
const struct kvk_posix_sys *model_table(void);

/* How many calls were recorded. What was done before is before this one. */
uint32_t model_count(void);
/* syncfs by somebody else. */
void model_sync_all(void);
/* Somebody overwrites a byte of the file with this path below the root, and that is on the medium. False: there is no such file. */
bool model_damage(const char *path, uint64_t offset_bytes);

/* The name of a path below the root; 0: nothing ever had it. */
uint32_t model_find(const struct model_record *record, const char *path);

/* ---- crash states ---------------------------------------------------------------------------------- */

enum model_mode {
	MODEL_ANY = 0,                 /* each change by itself, one of two */
	MODEL_MOST,
	MODEL_FEW,
	MODEL_ORDERED,                 /* what came before some call, and part of that */
	MODEL_ALL_BUT_ONE,
	MODEL_ONLY_ONE,
	MODEL_NAMES_FIRST,             /* all names and no data: rename before data */
	MODEL_SIZES_FIRST,             /* all names and lengths, data by itself: size before data */
	MODEL_DATA_FIRST,              /* all data, no lengths and no names */
	MODEL_FILES_WHOLE,             /* all names, of each file all or nothing */
	MODEL_MODES
};

struct model_state {
	const struct model_record *record;
	uint32_t crash;                /* calls before this one happened */
	uint64_t seed;
	enum model_mode mode;
	uint32_t pivot;                /* of the modes that have one: the call */
	uint32_t *inodes;              /* by name: what it is in this state; 0: nothing */
};

const char *model_mode_name(enum model_mode mode);

/* The sync that covers everything from op on; MODEL_NEVER. */
uint32_t model_synced_at(const struct model_record *record, uint32_t op);

/* The state of a seed: a mode, a pivot, and all names. Ended by model_state_free(). */
void model_state_init(struct model_state *state, const struct model_record *record, uint32_t crash, uint64_t seed);
void model_state_free(struct model_state *state);

/*
 * The file's bytes in this state, written to data (MODEL_FILE_BYTES_MAX) unless that is NULL. Returns a number that differs
 * wherever the contents may.
 */
uint64_t model_contents(const struct model_state *state, uint32_t inode, uint8_t *data, uint64_t *bytes_ret);

/* Makes all of the state below root, which is an empty folder. */
void model_build(const struct model_state *state, const char *root);

/* Says on stderr which calls led there, and what became of them. */
void model_tell(const struct model_state *state);

#endif
