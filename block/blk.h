/* The block layer's front door: a drive as devices and the monitor see it.
 *
 * A blk owns one image chain and the loop it runs on.  Two doors: blk_submit
 * from any thread, completion called on the loop thread; blk_run runs a function
 * as a fiber of the loop and waits.  Nothing else enters block/. */
#ifndef BLOCK_BLK_H
#define BLOCK_BLK_H

#include "base/base.h"
#include "base/error.h"
#include "base/fiber.h"
#include "base/list.h"
#include "base/loop.h"

#include <sys/uio.h>

struct blk;
struct image;
struct key;
struct open_policy;
struct opts;
struct unlock_policy;

enum blk_op { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_DISCARD, BLK_ZERO };
enum blk_flags {
	BLK_FUA = 1,	   /* durable when done */
	BLK_MAY_UNMAP = 2, /* BLK_ZERO may deallocate */
};

/* A request.  Storage, vector and memory are the caller's until done is called.
 * goff and the vector's bytes must be multiples of 512 and lie in the disk, else
 * done gets -EINVAL; other results: 0, -EIO, -ENOSPC, -EROFS, ... */
struct blk_req {
	enum blk_op op;
	u32 flags;
	u64 goff;
	const struct iovec *iov; /* read, write */
	unsigned niov;
	u64 bytes; /* discard, zero; set by blk_submit from the vector otherwise */
	void (*done)(struct blk_req *req, int ret); /* on the loop thread */
	/* owned by blk until done */
	struct blk *blk;
	struct loop_call call;
	struct list link;
	u64 start_ns;
};

/* What a device does about a failed request. */
enum blk_on_error { BLK_REPORT, BLK_IGNORE, BLK_STOP };

struct blk_options {
	const char *id;	    /* "ide0-hd0"; copied */
	const char *file;   /* NULL: no medium (CD drive) */
	const char *format; /* NULL: probe */
	const char *cache;  /* writeback none writethrough directsync unsafe; NULL: writeback */
	const char *aio;    /* NULL, "io_uring", "threads", "native" (as io_uring) */
	bool readonly;
	bool snapshot; /* writes go to a temporary overlay, dropped at close */
	bool discard_unmap;
	bool copy_on_read;	       /* what is read from behind the image goes into it */
	bool share_rw;		       /* others may write to a raw image */
	const char *werror;	       /* report ignore stop enospc; NULL: enospc */
	const char *rerror;	       /* report ignore stop; NULL: report */
	struct throttle_group *limits; /* NULL: none; takes an owner of it */
	/* Id of an internal snapshot whose VM state is all that is wanted: read-only, and
	 * beside whoever writes the image.  NULL: no. */
	const char *vm_state_of;
	/* More about the image, as --image-opts names it; NULL: nothing.  With file NULL
	 * they say what the medium is.  Lent for the call. */
	const struct opts *image;
	/* Passphrases (unlock.h); NULL: none.  Copied; its secrets are kept. */
	const struct unlock_policy *unlock;
};

/* Open a drive and start its loop thread. */
int blk_open(struct blk **out, const struct blk_options *opt, struct error *err);
/* Drain, flush, close the chain and end the thread. */
void blk_close(struct blk *blk);
/* A blk over an image on a loop that the caller runs (cowimg, tests).  Takes img. */
int blk_from_image(struct blk **out, struct loop *loop, struct image *img);

void blk_submit(struct blk *blk, struct blk_req *req); /* [any thread] */
/* Of a request that ended with ret < 0.  BLK_STOP: the machine stops, and the request
 * is submitted again when it goes on.  [any thread] */
enum blk_on_error blk_on_error(struct blk *blk, enum blk_op op, int ret);

/* By name: report ignore stop enospc, for reads or for all else.  Before requests. */
int blk_set_error_action(struct blk *blk, enum blk_op op, const char *name, struct error *err);
/* Whether writes may be done before they are durable.  Before requests. */
void blk_set_write_cache(struct blk *blk, bool on);

/* Run fn as a fiber on the loop and wait for its result.  From any thread but
 * the loop's own. */
typedef int blk_fn(struct fiber *f, struct blk *blk, void *arg);
int blk_run(struct blk *blk, blk_fn *fn, void *arg); /* [any thread]; see blk_task.h */

/* Hold new requests back and wait until none is in flight; nestable. */
void blk_drain_begin(struct blk *blk); /* [any thread but the loop] */
void blk_drain_end(struct blk *blk);
int blk_flush_wait(struct blk *blk);			       /* [any thread but the loop] */
int blk_resize(struct blk *blk, u64 bytes, struct error *err); /* [any thread but the loop] */

/* Requests that wait for the drive's limits go now. [loop] */
void blk_start_waiting(struct blk *blk);

const char *blk_id(const struct blk *blk);
const char *blk_file(const struct blk *blk); /* NULL: no medium; good while nothing (job.h,
						overlay.h) changes the chain */
bool blk_has_medium(const struct blk *blk);
u64 blk_bytes(const struct blk *blk); /* [any thread]; 0 without medium */
bool blk_is_readonly(const struct blk *blk);
bool blk_write_cache(const struct blk *blk); /* false: every write is durable when done */
struct loop *blk_loop(struct blk *blk);	     /* for ioeventfds served on its thread */
struct image *blk_image(struct blk *blk);    /* top image; loop thread only */

/* The image is another one, or its content and size are.  [loop] */
void blk_image_changed(struct blk *blk);
/* Told on the loop thread when medium or size change. */
struct blk_watcher {
	struct list link;
	void (*changed)(struct blk_watcher *w);
	struct blk *blk; /* owned by blk until blk_unwatch */
};
void blk_watch(struct blk *blk, struct blk_watcher *w);
void blk_unwatch(struct blk_watcher *w);

struct blk_stats {
	u64 ops[BLK_ZERO + 1], bytes[BLK_ZERO + 1], total_ns[BLK_ZERO + 1], failed[BLK_ZERO + 1];
	u64 idle_ns; /* since the last one ended; 0: there was none */
};
void blk_get_stats(const struct blk *blk, struct blk_stats *out); /* [any thread] */

/* What `info block` prints of a drive; strings are copies, free with blk_info_fini. */
struct blk_info {
	char *node, *file, *format, *backing_file, *cache; /* node, cache: of a medium */
	char *locked; /* image that waits for its passphrase; NULL: none */
	unsigned backing_depth;
	bool readonly, has_medium, encrypted;
	u8 detect_zeroes; /* 0: off, 1: on, 2: unmap */
};
void blk_get_info(struct blk *blk, struct blk_info *out);
void blk_info_fini(struct blk_info *info);

#endif
