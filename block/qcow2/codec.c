/* The two compression types of qcow2 (docs/interop/qcow2, "Compressed Clusters").
 *
 * zlib: raw deflate (RFC 1951) whose distances stay within 4 KiB, as readers
 * inflate with such a window.  Only zlib can limit it.  libdeflate inflates several
 * times faster, but is strict: what it refuses zlib judges, which takes a stream that
 * ends late.
 * zstd: frames, one after the other, until the cluster is full. */
#include "block/qcow2/codec.h"

#include <errno.h>
#include <libdeflate.h>
#include <zlib.h>
#include <zstd.h>

#define WINDOW_BITS	 -12			   /* negative: no header, no checksum */
#define MEM_LEVEL(bytes) ((bytes) <= 4096 ? 6 : 9) /* each reset clears the tables */

/* zlib's level 6 with shorter searches: within a window of 4 KiB they find nearly
 * all there is to find, for 0.7 % more bytes in 0.7 of the time. */
#define GOOD_MATCH 8
#define MAX_LAZY   32
#define NICE_MATCH 128
#define MAX_CHAIN  32

/* zstd's usual level is 3.  For clusters up to here level 2 takes three quarters of its
 * time, for 1.1 to 1.5 % more bytes; in larger ones it would miss too much.  Of the
 * bytes, a larger hash table gives some back, where there is enough to put into it. */
#define LEVEL_2_BYTES (128 * KiB)
#define HASH_16_BYTES (32 * KiB)

struct codec {
	enum codec_type type;
	struct codec *next; /* of those that are idle */
	bool deflating;	    /* `deflate` is initialized */
	z_stream deflate;
	struct libdeflate_decompressor *inflate;
	ZSTD_CCtx *zstd_pack;
	ZSTD_DCtx *zstd_unpack;
};

struct codec *codec_new(enum codec_type type)
{
	struct codec *c = try_alloc(sizeof(*c));

	if (c)
		c->type = type;
	return c;
}

void codec_free(struct codec *c)
{
	if (!c)
		return;
	if (c->deflating)
		deflateEnd(&c->deflate);
	libdeflate_free_decompressor(c->inflate);
	ZSTD_freeCCtx(c->zstd_pack);
	ZSTD_freeDCtx(c->zstd_unpack);
	free(c);
}

/* --- zlib --- */

static s64 zlib_pack(struct codec *c, const void *in, u64 bytes, void *out, u64 room)
{
	z_stream *z = &c->deflate;
	int ret = Z_OK;

	if (c->deflating)
		ret = deflateReset(z);
	else
		ret = deflateInit2(z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, WINDOW_BITS,
				   MEM_LEVEL(bytes), Z_DEFAULT_STRATEGY);
	if (ret != Z_OK)
		return -ENOMEM;
	c->deflating = true;
	deflateTune(z, GOOD_MATCH, MAX_LAZY, NICE_MATCH, MAX_CHAIN); /* a reset forgets it */
	z->next_in = (void *)(uintptr_t)in;
	z->avail_in = (uInt)bytes;
	z->next_out = out;
	z->avail_out = (uInt)room;
	if (deflate(z, Z_FINISH) != Z_STREAM_END)
		return -ENOSPC;
	return (s64)(room - z->avail_out);
}

/* What the fast way refused. */
static int zlib_unpack_lenient(const void *in, u64 bytes, void *out, u64 room)
{
	z_stream z = {.next_in = (void *)(uintptr_t)in,
		      .avail_in = (uInt)bytes,
		      .next_out = out,
		      .avail_out = (uInt)room};
	int ret;

	if (inflateInit2(&z, WINDOW_BITS) != Z_OK)
		return -ENOMEM;
	ret = inflate(&z, Z_FINISH);
	inflateEnd(&z);
	return (ret == Z_STREAM_END || ret == Z_BUF_ERROR) && !z.avail_out ? 0 : -EIO;
}

static int zlib_unpack(struct codec *c, const void *in, u64 bytes, void *out, u64 room)
{
	size_t took;

	if (!c->inflate)
		c->inflate = libdeflate_alloc_decompressor();
	if (!c->inflate)
		return -ENOMEM;
	if (libdeflate_deflate_decompress_ex(c->inflate, in, bytes, out, room, &took, NULL) ==
	    LIBDEFLATE_SUCCESS)
		return 0;
	return zlib_unpack_lenient(in, bytes, out, room);
}

/* --- zstd --- */

static s64 zstd_pack(struct codec *c, const void *in, u64 bytes, void *out, u64 room)
{
	size_t ret;

	if (!c->zstd_pack)
		c->zstd_pack = ZSTD_createCCtx();
	if (!c->zstd_pack)
		return -ENOMEM;
	ZSTD_CCtx_setParameter(c->zstd_pack, ZSTD_c_compressionLevel,
			       bytes <= LEVEL_2_BYTES ? 2 : 3);
	if (bytes >= HASH_16_BYTES && bytes <= LEVEL_2_BYTES)
		ZSTD_CCtx_setParameter(c->zstd_pack, ZSTD_c_hashLog, 16);
	ret = ZSTD_compress2(c->zstd_pack, out, room, in, bytes);
	return ZSTD_isError(ret) ? -ENOSPC : (s64)ret;
}

static int zstd_unpack(struct codec *c, const void *in, u64 bytes, void *out, u64 room)
{
	ZSTD_inBuffer from = {in, bytes, 0};
	ZSTD_outBuffer to = {out, room, 0};

	if (!c->zstd_unpack)
		c->zstd_unpack = ZSTD_createDCtx();
	if (!c->zstd_unpack)
		return -ENOMEM;
	ZSTD_DCtx_reset(c->zstd_unpack, ZSTD_reset_session_only);
	while (to.pos < to.size) {
		size_t in_before = from.pos, out_before = to.pos;
		size_t ret = ZSTD_decompressStream(c->zstd_unpack, &to, &from);

		if (ZSTD_isError(ret) || (from.pos == in_before && to.pos == out_before))
			return -EIO;
	}
	return 0;
}

/* --- both --- */

s64 codec_pack(struct codec *c, const void *in, u64 bytes, void *out, u64 room)
{
	return c->type == CODEC_ZSTD ? zstd_pack(c, in, bytes, out, room)
				     : zlib_pack(c, in, bytes, out, room);
}

int codec_unpack(struct codec *c, const void *in, u64 bytes, void *out, u64 room)
{
	return c->type == CODEC_ZSTD ? zstd_unpack(c, in, bytes, out, room)
				     : zlib_unpack(c, in, bytes, out, room);
}

/* --- several --- */

void codecs_init(struct codecs *s, enum codec_type type)
{
	*s = (struct codecs){.type = type};
	mutex_init(&s->lock);
}

void codecs_fini(struct codecs *s)
{
	while (s->idle) {
		struct codec *c = s->idle;

		s->idle = c->next;
		codec_free(c);
	}
	mutex_fini(&s->lock);
}

struct codec *codecs_take(struct codecs *s)
{
	struct codec *c;

	mutex_lock(&s->lock);
	c = s->idle;
	if (c)
		s->idle = c->next;
	mutex_unlock(&s->lock);
	return c ? c : codec_new(s->type);
}

void codecs_put(struct codecs *s, struct codec *c)
{
	LOCK_SCOPE(&s->lock);

	c->next = s->idle;
	s->idle = c;
}

const char *codec_name(enum codec_type type)
{
	return type == CODEC_ZSTD ? "zstd" : "zlib";
}
