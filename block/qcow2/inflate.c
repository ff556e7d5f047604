/* Reading compressed clusters.
 *
 * A few slots per image, each with room for one cluster before and after: they
 * bound memory and work under way, and keep what was inflated last, so that small
 * reads of a cluster inflate it once.  Several clusters of a request
 * are inflated side by side on the pool; a read that is alone does it on the spot,
 * as a hop to another thread and back would only delay it.
 *
 * A slot is known by the descriptor: data at a place in the file stay the same
 * until something new is packed there (inflate_forget).  The request that asks is
 * in q->ios, so the clusters cannot be reused while it reads (I2).
 * Thread: the image's loop; a busy slot's buffers belong to its fiber. */
#include "block/qcow2/compress.h"

#include "base/io.h"
#include "base/pool.h"
#include "block/qcow2/parts.h"

#include <errno.h>
#include <unistd.h>

#define MAX_SLOTS    16
#define INLINE_BYTES (16 * KiB) /* a hop takes 10 us, and so does inflating this */

struct slot {
	u64 entry; /* what `out` holds, or will; 0: nothing */
	u64 used;  /* when, in requests */
	bool busy;
	u8 *in, *out;
	u64 in_room;
};

struct inflater {
	struct slot slots[MAX_SLOTS];
	u32 n, max, busy;
	u64 requests;
	struct fiber_queue wait; /* for a slot, or for what it is inflating */
	struct codecs codecs;
};

static struct inflater *inflater_get(struct qcow2 *q)
{
	struct inflater *in = q->inflater;

	if (likely(in))
		return in;
	in = q->inflater = try_alloc(sizeof(*in));
	if (!in)
		return NULL;
	in->max = (u32)MIN(MAX(2 * sysconf(_SC_NPROCESSORS_ONLN), 4l), (long)MAX_SLOTS);
	fiber_queue_init(&in->wait);
	codecs_init(&in->codecs, compression_type(q));
	return in;
}

static void slot_fini(struct slot *s)
{
	assert(!s->busy);
	free(s->in);
	free(s->out);
	*s = (struct slot){0};
}

void inflate_fini(struct qcow2 *q)
{
	if (!q->inflater)
		return;
	for (u32 i = 0; i < q->inflater->n; i++)
		slot_fini(&q->inflater->slots[i]);
	codecs_fini(&q->inflater->codecs);
	free(q->inflater);
	q->inflater = NULL;
}

void inflate_forget(struct qcow2 *q, u64 hoff, u64 bytes)
{
	for (u32 i = 0; q->inflater && i < q->inflater->n; i++) {
		struct slot *s = &q->inflater->slots[i];
		struct compressed c = compressed_decode(q, s->entry);

		if (s->entry && c.hoff < hoff + bytes && hoff < c.hoff + c.bytes)
			s->entry = 0;
	}
}

static struct slot *find(struct inflater *in, u64 entry)
{
	for (u32 i = 0; i < in->n; i++)
		if (in->slots[i].entry == entry)
			return &in->slots[i];
	return NULL;
}

/* One that nobody fills: the one used longest ago, or a new one; NULL: wait. */
static struct slot *pick(struct inflater *in)
{
	struct slot *best = NULL;

	if (in->n < in->max && in->busy == in->n)
		return &in->slots[in->n++];
	for (u32 i = 0; i < in->n; i++)
		if (!in->slots[i].busy && (!best || in->slots[i].used < best->used))
			best = &in->slots[i];
	return best;
}

static bool prepare(const struct qcow2 *q, struct slot *s, const struct compressed *c, bool direct)
{
	if (s->in_room < c->bytes) {
		free(s->in);
		s->in_room = MAX(align_up(c->bytes, 4096), (u64)q->cluster_bytes);
		s->in = try_alloc_aligned(s->in_room, 4096);
		s->in_room = s->in ? s->in_room : 0;
	}
	if (!direct && !s->out)
		s->out = try_alloc_aligned(q->cluster_bytes, 4096);
	return s->in && (s->out || direct);
}

struct unpack {
	struct codecs *codecs;
	const u8 *in;
	u8 *out;
	u64 bytes, room;
};

static int unpack(void *arg)
{
	struct unpack *u = arg;
	struct codec *c = codecs_take(u->codecs);
	int ret;

	if (!c)
		return -ENOMEM;
	ret = codec_unpack(c, u->in, u->bytes, u->out, u->room);
	codecs_put(u->codecs, c);
	return ret;
}

/* No other request of this image is under way, nor another read of this one. */
static bool is_alone(const struct qcow2 *q)
{
	return q->inflater->busy == 1 && q->ios.next == q->ios.prev;
}

static int fill(struct fiber *f, struct qcow2 *q, struct slot *s, u8 *out, bool part)
{
	struct compressed c = compressed_decode(q, s->entry);
	struct unpack u = {.in = s->in, .out = out, .bytes = c.bytes, .room = q->cluster_bytes};
	int ret = qcow2_pread(f, q->img.below, c.hoff, s->in, c.bytes);

	if (ret < 0)
		return ret;
	u.codecs = &q->inflater->codecs;
	if (q->cluster_bytes <= INLINE_BYTES || (!part && is_alone(q)))
		ret = unpack(&u);
	else
		ret = pool_call(f, unpack, &u);
	return ret;
}

/* Guest bytes of one cluster. */
struct want {
	struct qcow2 *q;
	u64 entry, skip; /* its descriptor; bytes into the cluster */
	const struct iovec *iov;
	unsigned n;
	bool part; /* of a request for several clusters */
};

static void copy_out(const struct want *w, const struct slot *s)
{
	iov_copy_to(w->iov, w->n, 0, s->out + w->skip, iov_bytes(w->iov, w->n));
}

/* Inflate into a slot that is free, and from there, or right into the vector where
 * that is one piece of a whole cluster. */
static int inflate(struct fiber *f, const struct want *w, struct slot *s)
{
	struct qcow2 *q = w->q;
	struct inflater *in = q->inflater;
	struct compressed c = compressed_decode(q, s->entry);
	bool direct = w->n == 1 && w->iov->iov_len == q->cluster_bytes;
	int ret = -ENOMEM;

	s->busy = true;
	in->busy++;
	if (prepare(q, s, &c, direct))
		ret = fill(f, q, s, direct ? w->iov->iov_base : s->out, w->part);
	if (ret == 0 && !direct)
		copy_out(w, s);
	if (ret < 0 || direct)
		s->entry = 0;
	s->busy = false;
	in->busy--;
	fiber_queue_wake_all(&in->wait);
	return ret;
}

static int read_cluster(struct fiber *f, const struct want *w)
{
	struct inflater *in = inflater_get(w->q);
	struct slot *s;

	if (!in)
		return -ENOMEM;
	for (;;) {
		s = find(in, w->entry);
		if (s && !s->busy) { /* read before */
			s->used = ++in->requests;
			copy_out(w, s);
			return 0;
		}
		if (!s)
			s = pick(in);
		if (s && !s->busy)
			break;
		fiber_queue_wait(f, &in->wait);
	}
	s->entry = w->entry;
	s->used = ++in->requests;
	return inflate(f, w, s);
}

static int read_now(struct fiber *f, struct want *w, u64 goff)
{
	u64 bytes = iov_bytes(w->iov, w->n);
	struct extent e;
	int ret = l2_map(f, w->q, goff, bytes, &e);

	if (ret < 0)
		return ret;
	if (unlikely(e.kind != EXTENT_COMPRESSED)) /* overwritten meanwhile */
		return qcow2_read(f, &w->q->img, goff, w->iov, w->n);
	assert(e.bytes == bytes);
	w->entry = e.hoff;
	w->skip = goff & (w->q->cluster_bytes - 1);
	return read_cluster(f, w);
}

int compressed_read(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
		    unsigned n)
{
	struct want w = {.q = to_qcow2(img), .iov = iov, .n = n};

	return read_now(f, &w, goff);
}

int compressed_read_part(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
			 unsigned n)
{
	struct want w = {.q = to_qcow2(img), .iov = iov, .n = n, .part = true};

	return read_now(f, &w, goff);
}
