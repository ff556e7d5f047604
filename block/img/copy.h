/* Copying what images hold into another one: the engine of `convert`.
 *
 * A planner walks the maps of the sources once, in big strides; workers (fibers,
 * each with one buffer) read, look for zeros and write.  Writes start in guest
 * order unless told otherwise and run side by side.  Memory: workers *
 * COPY_CHUNK, whatever the size of the images. */
#ifndef BLOCK_IMG_COPY_H
#define BLOCK_IMG_COPY_H

#include "block/image.h"
#include "block/img/img.h"
#include "block/map_cursor.h"

struct img_progress;

#define COPY_CHUNK    (2 * MiB) /* most that is read or written at once */
#define COPY_SEGMENTS 64	/* pieces after which a chunk ends where it can */
#define COPY_WORKERS  16	/* at most */

struct copy_source {
	struct image *img;
	u64 start; /* where it lies in the target */
};

enum copy_kind { COPY_DATA, COPY_ZERO, COPY_SKIP };

/* A piece of guest data that one image of a source's chain decides. */
struct copy_segment {
	enum copy_kind kind;
	struct image *owner; /* of data */
	u64 goff, bytes;     /* in the owner */
	struct image *file;  /* host file with the same bytes, or NULL */
	u64 hoff;
};
struct copy_chunk {
	enum copy_kind kind;
	u64 start, bytes, seq;
	struct copy_segment *segments; /* of data; free() them */
	unsigned n, room;
};

struct copy {
	/* What and how, by the caller. */
	struct img *ctx;
	struct copy_source *sources;
	unsigned n_sources;
	struct image *target;
	u64 bytes;	     /* end of the last source in the target */
	u64 sparse_bytes;    /* as many zeros become a hole; 0: none does */
	u64 granule;	     /* what the target allocates at once, power of two <= COPY_CHUNK */
	bool target_is_zero; /* reads as zeros where nothing is written */
	bool backed;	     /* the target has what the sources' backing images have, ... */
	u64 backed_bytes;    /* ... up to here */
	bool compress, in_order, salvage, offload;
	bool head_last; /* what tells an image whole, its first bytes, goes last */
	unsigned workers;
	u64 rate; /* bytes a second, 0: no limit */
	struct img_progress *progress;

	/* State. */
	u64 pos, end, next_seq, turn, done_bytes, rate_slot_ns;
	unsigned source;	  /* that pos lies in */
	struct map_cursor cursor; /* over its chain */
	struct fiber_mutex plan_lock;
	struct fiber_queue turns, ended;
	unsigned running;
	int code; /* IMG_OK until something went wrong and was said */
};

/* Copy; what fails is said, and so is an interruption.  Suspends. */
int copy_run(struct copy *c);

/* --- copy_plan.c --- */
/* The next chunk; bytes 0: the end.  out is zeroed or an earlier one, whose memory
 * is used again.  One caller at a time.  Suspends. */
int copy_plan_next(struct fiber *f, struct copy *c, struct copy_chunk *out);
void copy_plan_fini(struct copy *c);

#endif
