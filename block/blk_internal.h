/* Shared by blk.c and blk_open.c: the state of a drive.
 *
 * Fields of the loop's thread unless tagged otherwise. */
#ifndef BLOCK_BLK_INTERNAL_H
#define BLOCK_BLK_INTERNAL_H

#include "block/blk.h"
#include "block/image.h"
#include "block/throttle.h"
#include "block/unlock.h"

/* What is done about a failed request; only_enospc: others are reported. */
struct blk_error_policy {
	enum blk_on_error action;
	bool only_enospc;
};

struct blk {
	char *id;	   /* [const] */
	char *file;	   /* [loop, while drained] NULL: no medium */
	struct loop *loop; /* [const] */
	bool owns_loop;	   /* [const] */
	struct job *job;   /* [loop] at work on the chain; NULL: none */
	bool readonly;	   /* [const] */
	bool write_cache;  /* [const] once devices are there */
	struct blk_error_policy on_write_error, on_read_error; /* [const] once devices are there */
	bool error_said;	       /* [atomic] since the machine went on */
	bool locked;		       /* an image of the chain is: no requests */
	bool has_medium;	       /* [atomic] relaxed; written on the loop */
	struct image *img;	       /* [loop] NULL: no medium */
	struct open_policy policy;     /* [const] for images that come over this one */
	struct unlock_policy unlock;   /* [const] policy.unlock */
	u64 bytes;		       /* [atomic] relaxed: a figure of its own */
	struct throttle_group *limits; /* NULL: none */
	struct list waiting[2];	       /* for them: reads, writes */
	struct loop_timer timers[2];
	bool copy_on_read;	       /* [const] reads fill the top (copy_on_read.h) */
	bool copy_failed;	       /* the last copy did: nothing is said of the next */
	struct range_locks copy_locks; /* guest changes share, a copy excludes */
	unsigned hurries;	       /* nobody waits */
	unsigned in_flight;
	unsigned visitors;	 /* functions of blk_run under way */
	unsigned drains;	 /* blk_drain_begin without end */
	struct list held;	 /* requests that wait for the end of a drain */
	struct fiber_queue idle; /* who waits for in_flight to become 0 */
	struct list watchers;
	u64 last_ns;		/* [atomic] relaxed */
	struct blk_stats stats; /* [atomic] relaxed; written on the loop */
};

/* Make a request's fiber. */
void blk_go(struct blk *blk, struct blk_req *req);

/* blk_throttle.c; blk_throttle: true if the request is taken care of. */
void blk_throttle_init(struct blk *blk);
void blk_throttle_fini(struct blk *blk);
bool blk_throttle(struct blk *blk, struct blk_req *req);
void blk_throttle_serve(struct blk *blk); /* when a drain ends */

/* The parts that open and close a drive on its loop. */
void blk_free(struct blk *blk); /* the memory alone */
int blk_drain_fiber(struct fiber *f, struct blk *blk);
void blk_set_image(struct blk *blk, struct image *img);
/* Another top, and the name that goes with it.  Drained. */
void blk_switch(struct blk *blk, struct image *img);
/* The other end of blk_drain_fiber. */
void blk_drain_stop(struct blk *blk);

#endif
