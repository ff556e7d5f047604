/* Compression of one cluster: raw deflate with a window of 4 KiB, or zstd.
 *
 * A codec keeps its contexts from one cluster to the next; it belongs to one
 * thread at a time, whichever that is.  Pure: no image, no fiber. */
#ifndef BLOCK_QCOW2_CODEC_H
#define BLOCK_QCOW2_CODEC_H

#include "base/base.h"
#include "base/thread.h"

enum codec_type { CODEC_ZLIB, CODEC_ZSTD }; /* as in the image's header */

struct codec;
struct codec *codec_new(enum codec_type type); /* NULL: no memory */
void codec_free(struct codec *c);	       /* NULL is fine */

/* Compress `bytes`, of clusters of one size, to at most `room`: the bytes it took,
 * -ENOSPC if they do not fit, -ENOMEM. */
s64 codec_pack(struct codec *c, const void *in, u64 bytes, void *out, u64 room);
/* Fill `out` with what `in` holds; more of it than fits and bytes behind it do not
 * matter.  -EIO: it is not compressed data, or less than `room`; -ENOMEM. */
int codec_unpack(struct codec *c, const void *in, u64 bytes, void *out, u64 room);

/* Codecs for a number of tasks, most of which wait.  As few are made as are in use at
 * once, and the one used last is taken first: its tables, up to half a megabyte, are
 * still in the cache.  Thread: any. */
struct codecs {
	enum codec_type type; /* [const] */
	struct mutex lock;
	struct codec *idle; /* [lock] */
};
void codecs_init(struct codecs *s, enum codec_type type);
void codecs_fini(struct codecs *s);
struct codec *codecs_take(struct codecs *s); /* NULL: no memory */
void codecs_put(struct codecs *s, struct codec *c);

const char *codec_name(enum codec_type type);

#endif
