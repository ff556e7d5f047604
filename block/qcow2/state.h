/* An open qcow2 image in memory, and what its files offer one another.
 *
 * Thread: the image's loop; no locks.  Between two suspensions everything here
 * is consistent, and newer than the file: commit.c brings the file up to date. */
#ifndef BLOCK_QCOW2_STATE_H
#define BLOCK_QCOW2_STATE_H

#include "base/error.h"
#include "base/list.h"
#include "block/image.h"
#include "block/qcow2/crypt.h"
#include "block/qcow2/format.h"
#include "block/qcow2/overlap.h"
#include "block/qcow2/pending.h"
#include "block/qcow2/slice.h"
#include "block/qcow2/snapshot.h"

#define HEADER_SECTOR 512u

/* Header fields that are switched together, by one sector in stage B. */
struct layout {
	u64 bytes;
	u64 l1_hoff;
	u32 l1_entries;
};

struct qcow2 {
	struct image img;

	/* [const] geometry */
	u32 version, cluster_bits, l2_bits, refcount_order, refblock_bits;
	u32 cluster_bytes, l2_entries, refblock_entries;
	u32 granule; /* metadata is written in multiples of this */
	u64 max_hoff;
	bool lazy, discard_host, check_only;
	bool extended;		   /* L2 entries of 16 bytes, 32 subclusters */
	u32 sub_bits;		   /* log2 of a subcluster; without them: of a cluster */
	u64 zero_bit, placed_bits; /* of an L2 entry: reads as zeros; has a place */

	struct image *data; /* where guest data lies: img.below, or an external file */
	bool data_external, data_raw;
	char *data_name; /* as the header names it, NULL: not named */

	/* Header.  `head` is what the first sector of the file holds; layout and
	 * refcount table below are newer until a commit has put them there. */
	union {
		struct disk_header head;
		u8 head_sector[HEADER_SECTOR];
	};
	struct fiber_mutex head_lock, begin_lock;
	struct disk_feature_name *features;
	u32 feature_count;
	struct disk_bitmaps bitmaps;   /* the extension; count 0: none */
	bool has_bitmaps;	       /* the extension is there */
	char *bitmaps_error;	       /* check_only: why they could not be read */
	struct bitmap_set *bitmap_set; /* NULL: none */
	struct dirty_map *tracking;    /* what was written, for bitmaps; NULL: nobody asks */
	bool writing, changed; /* autoclear bits are gone: all may be written; or bitmaps alone */
	bool beginning;	       /* bitmaps are being marked, writers wait for it */
	bool corrupt, told;    /* seen in this session or set in the header; said so */
	struct qcow2_crypt crypt;

	/* L1 and L2 */
	u64 *l1;	/* host byte order */
	u32 l1_entries; /* in use; as many indices in l2 */
	u32 l1_room;	/* entries of the memory, whole granules */
	u64 l1_hoff;
	u32 l1_clusters; /* of the table on disk */
	u8 *l1_dirty;	 /* per granule */
	bool l1_any_dirty;
	bool l2_twins; /* entries of the L1 table name one table */
	bool l1_fresh; /* whole table at a new place */
	bool layout_dirty;
	struct table_cache l2;
	struct slices slices;		  /* of its tables */
	struct range_locks cluster_locks; /* guest bytes being allocated or freed */

	/* Refcounts */
	u64 *reftable;	   /* host byte order */
	u32 reftable_n;	   /* entries in memory, as many indices in blocks */
	u64 reftable_hoff; /* in the file, or where it goes */
	u32 reftable_clusters;
	bool reftable_fresh; /* must be written whole, at a new place */
	bool reftable_moved; /* header must be told */
	u8 *reftable_dirty;  /* per granule: names blocks the file's table does not */
	bool reftable_any_dirty;
	bool reftable_bad; /* check_only: could not be read */
	u32 *first_free;   /* per block: no free cluster before this entry */
	u32 first_block;   /* no free cluster in blocks before this one */
	u64 fresh_hoff;	   /* from here on the file was never written */
	struct host_room room;
	struct table_cache blocks;
	struct fiber_mutex alloc_lock;
	struct overlap_set metadata;
	struct inflater *inflater; /* compress.h; NULL until needed */
	struct packer *packer;
	struct depths_memory below;

	struct qcow2_snapshot *snapshots;
	u32 snapshot_count;
	u64 snapshot_bytes; /* of the table on disk */
	u32 snapshots_cut;  /* that many did not fit */
	u32 changes;	    /* to the image, under way (change.c) */
	struct qcow2_snapshot_job *job;
	struct fiber_queue change_queue;

	/* Ordering */
	struct list freed, durable;   /* struct freed_run */
	u64 freed_runs, durable_runs; /* of both lists; of the second */
	struct list ios;	      /* struct io_track, oldest first */
	u64 written, synced;	      /* writes completed; those of them known durable */
	u64 io_seq, commits_begun, commits_done;
	int commit_result;
	bool committing, closing, frozen;
	bool commit_refcounts; /* lazy: the next commit writes them all the same */
	struct fiber_queue commit_queue;
};

static inline struct qcow2 *to_qcow2(struct image *img)
{
	return container_of(img, struct qcow2, img);
}

static inline u64 cluster_floor(const struct qcow2 *q, u64 x)
{
	return align_down(x, q->cluster_bytes);
}

static inline u64 cluster_ceil(const struct qcow2 *q, u64 x)
{
	return align_up(x, q->cluster_bytes);
}

static inline u64 clusters_of(const struct qcow2 *q, u64 bytes)
{
	return (bytes >> q->cluster_bits) + !is_aligned(bytes, q->cluster_bytes);
}

/* Guest bytes mapped by one L2 table. */
static inline u64 l2_span(const struct qcow2 *q)
{
	return (u64)q->cluster_bytes << q->l2_bits;
}

/* Read metadata; zeros beyond the end of the file.  Suspends. */
int qcow2_pread(struct fiber *f, struct image *file, u64 hoff, void *buf, u64 bytes);
/* Write to the file and note that it needs a sync.  Suspends. */
int qcow2_pwrite(struct fiber *f, struct qcow2 *q, u64 hoff, const void *buf, u64 bytes);

#endif
