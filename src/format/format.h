/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What kvkeep leaves on a medium (format 1). docs/format.md holds the byte-exact tables.
 *
 * Everything here is a pure function of its arguments, does no I/O, and may be called by any thread. Parsers
 * refuse whatever the encoder would not have written, never read outside of what they are given, and
 * point into it instead of copying.
 */
#ifndef KVK_FORMAT_FORMAT_H
#define KVK_FORMAT_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <kvkeep/key.h>
#include <kvkeep/store.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__ || __SIZEOF_POINTER__ != 8
#error "kvkeep's formats are for 64-bit little-endian machines"
#endif

#define KVK_FORMAT_VERSION 1u
#define KVK_PAGE_BYTES 4096u
#define KVK_DIGEST_BYTES 32u

static inline uint64_t kvk_page_ceil(uint64_t bytes)
{
	return (bytes + KVK_PAGE_BYTES - 1) & ~(uint64_t)(KVK_PAGE_BYTES - 1);
}

static inline uint64_t kvk_page_floor(uint64_t bytes)
{
	return bytes & ~(uint64_t)(KVK_PAGE_BYTES - 1);
}

/* ---- digest.c ----------------------------------------------------------------------------------- */

/*
 * SHA-256 of namespace digest and key: the identity of an object. One hash context a thread is kept and
 * reused (an EVP context made anew costs more than the hash). -ENOMEM: OpenSSL could not make one.
 */
int kvk_key_digest(uint8_t digest[KVK_DIGEST_BYTES], const uint8_t namespace_digest[KVK_DIGEST_BYTES],
		   const void *key, uint32_t key_bytes);

/* SHA-256 of "lmcache name", a zero byte and the last component of a name: see kvk_name_id(). -ENOMEM as above. */
int kvk_name_digest(uint8_t digest[KVK_DIGEST_BYTES], const char *component);

/* The seed of an object's sums: the first 8 bytes of its digest, little endian. */
uint64_t kvk_digest_seed(const uint8_t digest[KVK_DIGEST_BYTES]);

/* CRC-32C (Castagnoli) of data, going on from what came before it: 0 to begin with. */
uint32_t kvk_crc32c(const void *data, size_t bytes, uint32_t before);

/* ---- footer.c ----------------------------------------------------------------------------------- */

#define KVK_BLOCK_BYTES_MIN 65536u
#define KVK_BLOCK_BYTES_MAX 1048576u
#define KVK_TRAILER_BYTES 16u
/* 4 GiB in blocks of 1 MiB: 4,096 sums of 8 bytes, and at most a page and a half of the rest. */
#define KVK_BLOCK_COUNT_MAX 4096u
#define KVK_FOOTER_BYTES_MAX 40960u

enum { KVK_CHECKSUM_XXH3 = 1 };
enum { KVK_CODEC_NONE = 0 };
enum { KVK_CIPHER_NONE = 0 };

/* A footer in memory. Pointers belong to the caller (encode) or point into the parsed bytes (parse). */
struct kvk_footer {
	/* Format 1 knows no flag, so the encoder wants zeros. What a parser meets all the same: */
	uint32_t incompat_flags;           /* refused */
	uint32_t ro_compat_flags;          /* may be read, not rewritten */
	uint32_t compat_flags;             /* may be ignored */
	uint8_t checksum_id;
	uint8_t codec_id;
	uint8_t cipher_id;
	uint32_t key_id;
	uint64_t logical_bytes;
	uint64_t stored_bytes;             /* equal to logical_bytes while there is no codec */
	uint32_t block_bytes;              /* power of two, 64 KiB to 1 MiB */
	uint32_t block_count;
	uint64_t created_ns;               /* since 1970 */
	uint64_t writer_id;
	uint64_t generation;               /* a pool slot's uses; 0 elsewhere */
	uint8_t namespace_digest[KVK_DIGEST_BYTES];
	uint8_t parent_digest[KVK_DIGEST_BYTES];
	uint32_t depth;
	uint32_t meta_bytes;               /* up to KVK_META_BYTES_MAX */
	uint32_t key_bytes;                /* 1 to KVK_KEY_BYTES_MAX */
	const void *meta;
	const void *key;
	const void *block_sums;            /* block_count little-endian uint64_t, maybe unaligned: use kvk_footer_sum() */
};

/* The block size that objects of this length are written with: the smallest that needs at most 256 blocks
 * (so that the footer stays one page up to 256 MiB and a block stays in a CPU's second-level cache). */
uint32_t kvk_block_bytes_for(uint64_t stored_bytes);
uint32_t kvk_block_count_for(uint64_t stored_bytes, uint32_t block_bytes);

/* Length of the encoded footer: a multiple of KVK_PAGE_BYTES. Needs block_count, meta_bytes, key_bytes; 0 if one of
 * them is out of bounds. */
uint32_t kvk_footer_bytes(const struct kvk_footer *footer);

/* The writer that a footer of any version says, which its first page holds: for one that parse refused with -EPROTO. */
uint64_t kvk_footer_writer(const void *data);

/* XXH3-64 of one block (the last one may be short) under an object's seed. */
uint64_t kvk_block_sum(const void *data, size_t bytes, uint64_t seed);

/* The same of a block that is in fragments: `bytes` from offset_bytes on of what iov holds together. */
uint64_t kvk_block_sum_iov(const struct iovec *iov, uint32_t count, uint64_t offset_bytes, uint64_t bytes,
			   uint64_t seed);

/*
 * Writes kvk_footer_bytes() bytes to buffer, with CRC and root sum; digest is the one of the footer's namespace and
 * key, and is not computed again. meta, key and block_sums lie outside of buffer. -EINVAL: a field is out of bounds
 * (the parser would refuse it). -ENOSPC: buffer_bytes is too small. buffer is untouched on failure.
 */
int kvk_footer_encode(const struct kvk_footer *footer, const uint8_t digest[KVK_DIGEST_BYTES], void *buffer,
		      size_t buffer_bytes);

/*
 * Reads the trailer, the last 16 bytes of an object, and tells how long the footer is (a multiple of
 * KVK_PAGE_BYTES, KVK_FOOTER_BYTES_MAX at most). -EBADMSG: not a trailer.
 */
int kvk_trailer_parse(const uint8_t trailer[KVK_TRAILER_BYTES], uint32_t *footer_bytes);

/*
 * Parses a whole footer of exactly `bytes` bytes: trailer, CRC, every bound, the root sum, reserved bytes. Also
 * computes the object's digest from the footer's own namespace and key. -EBADMSG: damaged, or nothing of ours.
 * -EPROTO: its CRC is right, but it is of a newer version or has an unknown incompat flag, checksum, codec or
 * cipher. -ENOMEM: as kvk_key_digest().
 * *ret and digest are untouched on failure.
 */
int kvk_footer_parse(struct kvk_footer *ret, uint8_t digest[KVK_DIGEST_BYTES], const void *data, size_t bytes);

uint64_t kvk_footer_sum(const struct kvk_footer *footer, uint32_t block);

/* ---- name.c ------------------------------------------------------------------------------------- */

#define KVK_NAME_BYTES_MAX 512     /* a path below the root, NUL included */

enum kvk_naming {
	KVK_NAMING_KVKEEP = 0,
	KVK_NAMING_LMCACHE = 1,
};

struct kvk_layout {
	enum kvk_naming naming;
	uint32_t levels;           /* kvkeep: 1 (256 folders) or 2 (65,536); lmcache: 0 (flat) or 2 (shard_dirs) */
};

/*
 * Writes the path of an object below the root: `ab/<64 hex>.kv`, or for KVK_NAMING_LMCACHE
 * `{model with / as --}_{rank:08x}_{group:x}_{hash hex}[@{salt}].bin`. -ENAMETOOLONG: the last component would be
 * longer than 255 bytes. -EINVAL: KVK_NAMING_LMCACHE and the key is not in text form, or contains what no file
 * name can ('/' in the salt, a NUL, a leading '.'), or has a hash too short for the folders (1 byte). name is untouched
 * on failure.
 */
int kvk_name_make(char name[KVK_NAME_BYTES_MAX], const struct kvk_layout *layout,
		  const uint8_t digest[KVK_DIGEST_BYTES], const void *key, uint32_t key_bytes);

/*
 * LMCache's older generation of names, which had no group and no salt. Only keys of group 0 without a salt have one:
 * for the others -EINVAL, since the file of that name may be another group's or another tenant's. Errors else as above.
 */
int kvk_name_make_old(char name[KVK_NAME_BYTES_MAX], const struct kvk_layout *layout, const void *key,
		      uint32_t key_bytes);

enum kvk_name_kind {
	KVK_NAME_OTHER = 0,        /* nothing of ours: left alone */
	KVK_NAME_OBJECT,
	KVK_NAME_TEMP,             /* `.tmp-...`: a put under way or what was put aside, or the remains of either */
	KVK_NAME_GONE,             /* `....gone`: removed, not unlinked yet */
	KVK_NAME_FOLDER,           /* two hex digits, where the layout has folders */
};

/* Says what the last component of a path is. digest (may be NULL) is filled for kvkeep's objects. */
enum kvk_name_kind kvk_name_kind(const char *component, const struct kvk_layout *layout,
				 uint8_t digest[KVK_DIGEST_BYTES]);

/* `<64 hex>.<sequence>.gone`, next to the object: same folder as name. -ENAMETOOLONG: name has no room for it. */
int kvk_name_make_gone(char gone[KVK_NAME_BYTES_MAX], const char *name, const uint8_t digest[KVK_DIGEST_BYTES],
		       uint64_t sequence);

/* `.tmp-<16 hex>-<sequence>`, next to the object. writer_id is random a process and store. */
int kvk_name_make_temp(char temp[KVK_NAME_BYTES_MAX], const char *name, uint64_t writer_id, uint64_t sequence);

/*
 * `.tmp-<16 hex>-<sequence>.aside`, next to the object: a temporary name under which another's object may come to lie, until the
 * writer has seen whose it is. So nobody but the writer takes it away as long as he lives.
 */
int kvk_name_make_aside(char aside[KVK_NAME_BYTES_MAX], const char *name, uint64_t writer_id, uint64_t sequence);

/* Whose that is, of either form. False: it is no temporary name. */
bool kvk_name_temp_writer(const char *component, uint64_t *writer_id_ret);
bool kvk_name_is_aside(const char *component);

/* ---- name_id.c ---------------------------------------------------------------------------------- */

/*
 * An object's identity in the catalog, from its path below the root alone: what is known of an object that was only listed.
 * KVK_NAMING_KVKEEP: the digest. KVK_NAMING_LMCACHE: kvk_name_digest() of the last component, where a name of the older
 * generation counts as what it would be in the newer one (group 0), and where there are folders, their two bytes come
 * first. So the first byte is the first folder's in every layout that has folders, and two keys that share a file
 * share an identity. -EINVAL: nobody looks for an object there. -ENOMEM as kvk_key_digest().
 */
int kvk_name_id(uint8_t id[KVK_DIGEST_BYTES], const struct kvk_layout *layout, const char *name);

/* The same for a key, whose digest it is. Errors as kvk_name_make(), and -ENOMEM. */
int kvk_key_id(uint8_t id[KVK_DIGEST_BYTES], const struct kvk_layout *layout, const uint8_t digest[KVK_DIGEST_BYTES],
	       const void *key, uint32_t key_bytes);

/* Of an object's name with KVK_NAMING_LMCACHE: what it says of model (each `/` of it as `--`) and salt, within name. False: it is not
 * of that form. The model of the older generation is the same. */
bool kvk_name_owner(const char *name, struct kvk_key *model, struct kvk_key *salt);
/*
 * The folders of a store are counted in buckets: the first two hex digits of a path below the root, with names of
 * lmcache's shards as with kvkeep's own. Flat names and pools are bucket 0, `.kvkeep/quarantine/` is a bucket of its own.
 */
#define KVK_BUCKETS 256u
#define KVK_BUCKET_QUARANTINE 256u
uint32_t kvk_name_bucket(const struct kvk_layout *layout, const char *name);

void kvk_hex(char *text, const void *data, size_t bytes);      /* 2 * bytes + 1 */
int kvk_unhex(void *data, const char *text, size_t bytes);     /* lower case only; -EINVAL */

/* ---- superblock.c ------------------------------------------------------------------------------- */

#define KVK_SUPERBLOCK_BYTES 4096u

enum kvk_durability {
	KVK_DURABILITY_NONE = 0,
	KVK_DURABILITY_BATCH = 1,
	KVK_DURABILITY_OBJECT = 2,
};

/* The shape of a pool. slot_bytes 0: the store is no pool. */
struct kvk_pool_shape {
	uint64_t slot_bytes;       /* a multiple of KVK_PAGE_BYTES, up to KVK_POOL_SLOT_BYTES_MAX; fixed */
	uint64_t slots;            /* 1 to KVK_POOL_SLOTS_MAX; only grows */
	uint64_t file_slots;       /* of each file, the last one may have fewer; fixed */
	uint64_t opens;            /* counts them: the upper bits of generations */
};

#define KVK_POOL_SLOT_BYTES_MAX (UINT64_C(1) << 30)
#define KVK_POOL_SLOTS_MAX (UINT64_C(1) << 31)

/* What is written down once per store, in `.kvkeep/superblock`. Only these pairs of naming and levels exist:
 * kvkeep with 1 or 2, lmcache with 0 or 2. */
struct kvk_superblock {
	uint8_t store_id[16];      /* random */
	uint64_t created_ns;       /* since 1970; with naming lmcache the time of adoption */
	struct kvk_layout layout;  /* fixed */
	uint64_t cap_bytes;        /* 0: none */
	enum kvk_durability durability;
	bool persist;
	bool group;                /* 0770/0660 */
	struct kvk_pool_shape pool;
};

/* superblock holds values that exist: the parser would refuse others. */
void kvk_superblock_encode(const struct kvk_superblock *superblock, uint8_t data[KVK_SUPERBLOCK_BYTES]);
/* -EBADMSG: damaged, or not KVK_SUPERBLOCK_BYTES long. -EPROTO: whole, but newer or with an unknown incompat flag. */
int kvk_superblock_parse(struct kvk_superblock *ret, const void *data, size_t bytes);

/* ---- pool.c ------------------------------------------------------------------------------------- */

/* A pool's file, or device, begins with its head; slots follow from here on. */
#define KVK_POOL_HEAD_BYTES 65536u
#define KVK_POOL_PUTS_BITS 40      /* of a generation: the lower bits count the puts since the pool was opened */

/* The head's first page; zeros follow. */
struct kvk_pool_head {
	uint8_t pool_id[16];       /* random, of all files of a pool */
	uint64_t created_ns;       /* since 1970 */
	uint64_t slot_bytes;
	uint64_t file_slots;
	uint32_t file_index;
	bool device;
};

void kvk_pool_head_encode(const struct kvk_pool_head *head, uint8_t page[KVK_PAGE_BYTES]);
/* -ENODATA: only zeros. -EBADMSG: damaged, or nothing of ours. -EPROTO: whole, but newer or with an unknown incompat flag. */
int kvk_pool_head_parse(struct kvk_pool_head *ret, const uint8_t page[KVK_PAGE_BYTES]);

/* What the writer field of a footer holds in a pool: it says which pool and which slot the object begins in, so that bytes
 * in somebody's payload that look like a footer are none. */
uint64_t kvk_pool_writer(const uint8_t pool_id[16], uint64_t first_slot);

/* ---- account.c ---------------------------------------------------------------------------------- */

#define KVK_ACCOUNT_BYTES 24576u               /* of one copy; the file has two */
#define KVK_ACCOUNT_BUCKETS (KVK_BUCKETS + 1)  /* quarantine too */
#define KVK_ACCOUNT_ROWS 256u
#define KVK_ACCOUNT_VALUE_MAX (UINT64_C(1) << 54)

/* One process that has the store open. token 0 and not lost: free, and all else 0. */
struct kvk_account_line {
	uint64_t token;            /* random */
	uint64_t leased_bytes;     /* up to KVK_ACCOUNT_VALUE_MAX */
	uint64_t settled_ns;       /* since 1970: what it published or unlinked before that time is posted */
	uint32_t visits;           /* transactions of this process */
	uint32_t pid;
	uint32_t seen;             /* low half of a sequence: what it published or unlinked before it saw that one is posted */
	bool lost;                 /* the file was made anew, and what it had leased may be more */
	char host[24];             /* printable, NUL at the end */
};

/* `.kvkeep/account`: what is charged and leased. Values up to KVK_ACCOUNT_VALUE_MAX, so that sums never overflow. */
struct kvk_account_image {
	uint64_t sequence;         /* counts transactions; the copy with the later one counts */
	uint64_t epoch;            /* counts opens */
	uint64_t cap_bytes;        /* 0: none */
	uint64_t loose_bytes;      /* leases of dead processes */
	uint64_t loosened_bytes;   /* all that ever became loose, modulo 2^64 */
	uint64_t wanted_ns;        /* processes are asked to settle up to here */
	uint32_t remade;           /* random, a new one whenever the file was lost */
	uint32_t asked;            /* processes are asked to settle up to this sequence */
	/* Where machines share the medium: */
	uint64_t written_ns;       /* the clock of who wrote this */
	uint64_t skew_ns;          /* by so much clocks were seen to differ, in ... */
	uint64_t skewed_sequence;  /* ... this sequence for the last time, or that of one machine was set before it; 0: never */
	uint64_t died;             /* counts processes whose rows others cleared, modulo 2^64 */
	uint64_t charged_bytes[KVK_ACCOUNT_BUCKETS];
	uint32_t posted[KVK_ACCOUNT_BUCKETS];          /* the low half of the sequence in which a process last posted */
	uint64_t published_bytes[KVK_ACCOUNT_BUCKETS]; /* all that was ever posted as published, modulo 2^64 */
	bool needs_scan;           /* charged may be less than what is there */
	struct kvk_account_line rows[KVK_ACCOUNT_ROWS];
};

/*
 * Sequences go round: behind the last one comes 0 again. No store gets there by itself; were the larger one always the newer, a
 * forged one would be the last that ever counts.
 */
static inline bool kvk_account_is_later(uint64_t sequence, uint64_t than)
{
	return (int64_t)(sequence - than) > 0;
}

/* image holds values that exist: the parser would refuse others. */
void kvk_account_encode(const struct kvk_account_image *image, uint8_t data[KVK_ACCOUNT_BYTES]);
/* One copy. -EBADMSG: damaged, torn, or not KVK_ACCOUNT_BYTES long. -EPROTO: whole, but newer or with an unknown
 * incompat flag. *ret is untouched on failure. */
int kvk_account_parse(struct kvk_account_image *ret, const void *data, size_t bytes);
/* The whole file: the valid copy with the later sequence. Errors as above; *ret may be changed on failure. scratch: any
 * image, for it is too large for a stack. */
int kvk_account_parse_file(struct kvk_account_image *ret, struct kvk_account_image *scratch, const void *data,
			   size_t bytes);

/* ---- news.c ------------------------------------------------------------------------------------- */

/*
 * `.kvkeep/news` counts what processes removed, `.kvkeep/news-ids` is a ring of the last of them, 16 bytes of each identity. Hints.
 */
#define KVK_NEWS_HEAD_BYTES 32u
#define KVK_NEWS_ID_BYTES 16u
#define KVK_NEWS_RING 16384u

struct kvk_news_head {
	uint64_t generation;       /* another one whenever the file was made anew */
	uint64_t count;            /* the next one goes into slot count % KVK_NEWS_RING */
};

void kvk_news_encode(const struct kvk_news_head *head, uint8_t data[KVK_NEWS_HEAD_BYTES]);
/* -EBADMSG; *ret is untouched on failure. */
int kvk_news_parse(struct kvk_news_head *ret, const void *data, size_t bytes);

/* ---- snapshot.c --------------------------------------------------------------------------------- */

/*
 * What a process knew of its store when it closed it: `.kvkeep/snapshot`. A hint: it counts only for the open that follows,
 * and nothing of an object is believed before its name and length were seen.
 */
#define KVK_SNAPSHOT_HEAD_BYTES 96u
#define KVK_SNAPSHOT_OBJECT_BYTES 64u
#define KVK_SNAPSHOT_END_BYTES 8u
#define KVK_SNAPSHOT_BYTES_MAX (UINT64_C(1) << 30)     /* 16 million objects; with more there is none */

struct kvk_snapshot_head {
	uint8_t store_id[16];
	uint64_t epoch;                    /* of the account: opens there were when it was made */
	uint64_t made_ns;                  /* since 1970 */
	uint64_t object_count;
	uint32_t names_bytes;              /* tenants' and models' names: a multiple of 8 */
};

struct kvk_snapshot_object {
	uint8_t prefix[16];                /* of its id */
	uint8_t parent_prefix[16];         /* zeros: none */
	uint64_t logical_bytes;
	uint64_t charge_bytes;             /* a multiple of 4,096 */
	uint64_t used_at_ns;
	uint32_t tenant, model;            /* of kvk_snapshot_put_name(); 0: none */
	bool durable;
};

/* Of the whole: head, objects, names, end. 0: more than KVK_SNAPSHOT_BYTES_MAX, or names_bytes is no multiple of 8. */
uint64_t kvk_snapshot_bytes(const struct kvk_snapshot_head *head);
/* Where the object of that index, and behind the last one the names, begin. */
static inline uint64_t kvk_snapshot_at(uint64_t index)
{
	return KVK_SNAPSHOT_HEAD_BYTES + index * KVK_SNAPSHOT_OBJECT_BYTES;
}
void kvk_snapshot_put_object(uint8_t at[KVK_SNAPSHOT_OBJECT_BYTES], const struct kvk_snapshot_object *object);
/*
 * Writes a name at *used of a buffer for names and moves that on. Returns how objects tell it: 1 and more; 0: it does not
 * fit, or is longer than 65,535 bytes.
 */
uint32_t kvk_snapshot_put_name(uint8_t *names, uint32_t names_bytes, uint32_t *used, const void *name, uint32_t bytes);
/* Writes head and end around objects and names, and seals them. */
void kvk_snapshot_seal(uint8_t *data, const struct kvk_snapshot_head *head);

/* -EBADMSG: damaged, or no snapshot. -EPROTO: whole, but newer. *ret is untouched on failure. */
int kvk_snapshot_parse(struct kvk_snapshot_head *ret, const void *data, uint64_t bytes);
void kvk_snapshot_get_object(struct kvk_snapshot_object *ret, const uint8_t at[KVK_SNAPSHOT_OBJECT_BYTES]);
/* The name that objects tell so; no bytes if there is none. */
struct kvk_key kvk_snapshot_get_name(const uint8_t *names, uint32_t names_bytes, uint32_t told);

/* ---- manifest.c --------------------------------------------------------------------------------- */

#define KVK_MANIFEST_BYTES_MAX 65536u

/*
 * Brings a namespace manifest (a JSON object) into its one canonical text: members sorted by their bytes at every depth,
 * no white space, numbers in one form (docs/format.md). *ret is freed with kvk_mem_free(). -EINVAL: not a JSON object, a
 * repeated member, a number out of range, or longer than KVK_MANIFEST_BYTES_MAX; error_text (may be NULL, 160 bytes)
 * says which. -ENOMEM.
 */
int kvk_manifest_canonical(char **ret, const char *json, char *error_text);

/* SHA-256 of the canonical text. The empty object, like no manifest at all (NULL), has the digest of 32 zeros.
 * -ENOMEM: OpenSSL could not do it. */
int kvk_manifest_digest(uint8_t digest[KVK_DIGEST_BYTES], const char *canonical);

#endif
