/* A check under way; shared by check*.c.  Thread: the image's loop. */
#ifndef BLOCK_QCOW2_CHECK_H
#define BLOCK_QCOW2_CHECK_H

#include "block/qcow2/parts.h"

/* References are counted for so many clusters at a time: 256 MiB of counts.
 * A larger file takes more passes over its metadata. */
#define CHECK_WINDOW (64 * MiB)

/* Bits that mean nothing yet. */
#define L1_RESERVED 0x7f000000000001ffull
#define L2_RESERVED 0x3f000000000001feull

struct check {
	struct qcow2 *q;
	struct check_request *req;
	u64 clusters; /* of the file */
	u32 *counts;  /* of clusters [first, first + n); stick at UINT32_MAX */
	u64 first, n;
	u8 *l2, *block;	   /* scratch, a cluster each */
	bool quiet;	   /* a further pass: messages and figures are out already */
	bool structure;	   /* count the refcount structure too */
	bool rebuild;	   /* the refcount structure is beyond repair in place */
	bool zero_seen;	   /* a refcount of 0 that should not be */
	bool fixing;	   /* repair what is met, as the request says */
	bool fix_flags;	   /* COPIED, too */
	u64 low, high;	   /* refcounts found too low, too high */
	bool changed;	   /* something was written */
	u64 highest;	   /* cluster in use */
	u64 bad_snapshots; /* entries that a fresh table would mend */
};

void check_line(struct check *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* One more corruption, with a line about it. */
#define check_corrupt(c, ...)                                                                      \
	do {                                                                                       \
		if ((c)->quiet)                                                                    \
			break;                                                                     \
		(c)->req->result.corruptions++;                                                    \
		check_line((c), __VA_ARGS__);                                                      \
	} while (0)

/* --- check_count.c --- */
/* Count every reference to clusters of the window.  Suspends. */
int check_count(struct fiber *f, struct check *c);
/* Count the clusters that [hoff, hoff + bytes) touches. */
void check_ref(struct check *c, u64 hoff, u64 bytes);

/* --- check_bitmaps.c --- */
/* Count what bitmaps take; bitmaps that cannot be read are given up by a repair.
 * Suspends. */
int check_bitmaps(struct fiber *f, struct check *c);

/* --- check_snapshots.c --- */
/* Judge the table's entries; -EFBIG if it takes a repair to go on. */
int check_snapshots(struct check *c, struct error *err);
/* Write a fresh table, if that is asked for and needed.  Suspends. */
int check_fix_snapshots(struct fiber *f, struct check *c, struct error *err);

/* --- check_fix.c --- */
/* Compare counts of the window with the refcounts, repair what may be repaired
 * in place.  Suspends. */
int check_compare(struct fiber *f, struct check *c);
/* Compare COPIED flags of the active tables with the refcounts.  Suspends. */
int check_copied(struct fiber *f, struct check *c);
/* Write a new refcount structure from the counts, at the end of the file, and
 * switch the header to it.  Suspends. */
int check_rebuild(struct fiber *f, struct check *c, struct error *err);

#endif
