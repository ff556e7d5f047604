/* How to open an image. */
#ifndef BLOCK_POLICY_H
#define BLOCK_POLICY_H

#include "base/base.h"

struct image;
struct opts;
struct unlock_policy;

/* How to open, and what an image may pull in by naming it. */
enum detect_zeroes { DETECT_ZEROES_OFF, DETECT_ZEROES_ON, DETECT_ZEROES_UNMAP };
enum cache_mode { CACHE_WRITEBACK, CACHE_WRITETHROUGH, CACHE_NONE, CACHE_DIRECTSYNC, CACHE_UNSAFE };

struct open_policy {
	bool writable;
	bool share_writers;		  /* do not refuse another process's write lock (-U) */
	bool share_rw;			  /* others may write, too: of raw images */
	bool no_backing;		  /* leave the backing file closed (info, rebase -u) */
	bool check_only;		  /* open damaged metadata as far as check needs it */
	bool discard;			  /* discard requests reach the host (discard=unmap) */
	u8 nesting;			  /* formats over formats, counted while opening */
	bool no_lock;			  /* take no locks on host files (locking=off) */
	enum detect_zeroes detect_zeroes; /* writes of zeros become image_zero */
	enum cache_mode cache;
	u32 l2_cache_bytes; /* 0: default */
	const char *format; /* NULL: probe; else never probes */
	/* More, by the names of --image-opts ("file.filename", "l2-cache-size");
	 * NULL: none.  Lent for the call.  Drivers find theirs here; the file below
	 * gets those under "file.", the backing image those under "backing.". */
	const struct opts *options;
	const struct unlock_policy *unlock; /* passphrases (unlock.h); NULL: none */
	const char *snapshot;		    /* show this internal one, read-only (id, else name) */
	/* Put a filter (record, fault) over each host file; NULL: none.  Takes
	 * and returns the image the format driver will see. */
	struct image *(*wrap)(struct image *file, void *arg);
	void *wrap_arg;
};

#endif
