/* qcow2 as it lies on disk: QEMU's docs/interop/qcow2, versions 2 and 3.
 * Structs and constants only. */
#ifndef BLOCK_QCOW2_FORMAT_H
#define BLOCK_QCOW2_FORMAT_H

#include "base/bytes.h"

#define QCOW2_MAGIC 0x514649fbu /* "QFI\xfb" */

#define QCOW2_MIN_CLUSTER_BITS	 9
#define QCOW2_MAX_CLUSTER_BITS	 21
#define QCOW2_MAX_REFCOUNT_ORDER 6
/* A subcluster is at least a sector. */
#define QCOW2_MIN_EXTENDED_CLUSTER 16384
#define QCOW2_V2_HEADER_BYTES	   72
#define QCOW2_V3_HEADER_BYTES	   104
#define QCOW2_MAX_BACKING_NAME	   1023

/* Limits of the reference on tables, which other programs rely on too. */
#define QCOW2_MAX_L1_BYTES	 (32 * MiB)
#define QCOW2_MAX_REFTABLE_BYTES (8 * MiB)
#define QCOW2_MAX_SNAPSHOTS	 65536
#define QCOW2_MAX_SNAPSHOT_BYTES (64 * MiB) /* of the whole table */
#define QCOW2_MAX_SNAPSHOT_EXTRA 1024
#define QCOW2_MAX_HOFF		 ((u64)1 << 56) /* what a table entry can name */

struct disk_header {
	be32 magic;
	be32 version;
	be64 backing_hoff;
	be32 backing_bytes;
	be32 cluster_bits;
	be64 bytes;
	be32 crypt_method;
	be32 l1_entries;
	be64 l1_hoff;
	be64 reftable_hoff;
	be32 reftable_clusters;
	be32 snapshots;
	be64 snapshots_hoff;
	/* version 3 from here on */
	be64 incompatible;
	be64 compatible;
	be64 autoclear;
	be32 refcount_order;
	be32 header_bytes;
	/* present if header_bytes says so */
	u8 compression_type;
	u8 padding[7];
};
_Static_assert(sizeof(struct disk_header) == 112, "the header has 112 bytes");

#define INCOMPAT_DIRTY	     ((u64)1 << 0)
#define INCOMPAT_CORRUPT     ((u64)1 << 1)
#define INCOMPAT_DATA_FILE   ((u64)1 << 2)
#define INCOMPAT_COMPRESSION ((u64)1 << 3)
#define INCOMPAT_EXTENDED_L2 ((u64)1 << 4)
#define COMPAT_LAZY	     ((u64)1 << 0)
#define AUTOCLEAR_BITMAPS    ((u64)1 << 0)
#define AUTOCLEAR_RAW_DATA   ((u64)1 << 1)

struct disk_extension {
	be32 type;
	be32 bytes;
};
#define EXT_END		   0x00000000u
#define EXT_BACKING_FORMAT 0xe2792acau
#define EXT_FEATURE_NAMES  0x6803f857u
#define EXT_BITMAPS	   0x23852875u
#define EXT_CRYPTO	   0x0537be77u
#define EXT_DATA_FILE	   0x44415441u

struct disk_crypto { /* the extension */
	be64 hoff, bytes;
};
_Static_assert(sizeof(struct disk_crypto) == 16, "the crypto extension has 16 bytes");

struct disk_feature_name {
	u8 kind; /* 0 incompatible, 1 compatible, 2 autoclear */
	u8 bit;
	char name[46]; /* zero padded, not always terminated */
};
_Static_assert(sizeof(struct disk_feature_name) == 48, "a feature name has 48 bytes");
#define QCOW2_FEATURE_NAMES 8
extern const struct disk_feature_name qcow2_feature_names[QCOW2_FEATURE_NAMES]; /* create.c */

struct disk_bitmaps { /* the extension */
	be32 count;
	be32 reserved;
	be64 directory_bytes;
	be64 directory_hoff;
};
_Static_assert(sizeof(struct disk_bitmaps) == 24, "the bitmaps extension has 24 bytes");

struct disk_bitmap { /* an entry of the directory */
	be64 table_hoff;
	be32 table_entries;
	be32 flags;
	u8 type;
	u8 granularity_bits;
	be16 name_bytes;
	be32 extra_bytes;
	/* extra data, name, padding to 8 */
};
_Static_assert(sizeof(struct disk_bitmap) == 24, "a bitmap entry starts with 24 bytes");
#define QCOW2_MAX_BITMAPS	 65535
#define QCOW2_MAX_BITMAP_ENTRIES (4 * MiB) /* of one bitmap's table */

struct disk_snapshot {
	be64 l1_hoff;
	be32 l1_entries;
	be16 id_bytes;
	be16 name_bytes;
	be32 date_sec;
	be32 date_nsec;
	be64 vm_clock_ns;
	be32 vm_state_bytes;
	be32 extra_bytes;
	/* extra data, id, name, padding to 8 */
};
_Static_assert(sizeof(struct disk_snapshot) == 40, "a snapshot entry starts with 40 bytes");

/* L1 and L2 entries. */
#define ENTRY_HOFF	 0x00fffffffffffe00ull
#define ENTRY_COPIED	 ((u64)1 << 63)
#define ENTRY_COMPRESSED ((u64)1 << 62)
#define ENTRY_ZERO	 ((u64)1 << 0) /* version 3, L2 only */

#define REFTABLE_HOFF 0xfffffffffffffe00ull

#endif
