/* Writing compressed clusters: data go back to back into host clusters.
 *
 * Clusters are compressed side by side on the pool, a bounded number at a time
 * (packets), and get their places in the order in which they were handed in, so
 * the file does not depend on timing.  A place is claimed by raising the refcount
 * of each host cluster it touches; the data are written, and then the entry is
 * linked in memory (I3).  Bytes that are in use are never written again, so data
 * may join a host cluster that others, snapshots too, use already (I4 is about
 * overwriting).  Thread: the image's loop; a packet's buffers belong to the pool
 * thread that runs it. */
#include "block/qcow2/compress.h"

#include "base/io.h"
#include "base/pool.h"
#include "block/driver.h"
#include "block/group.h"
#include "block/qcow2/change.h"
#include "block/qcow2/parts.h"
#include "block/qcow2/qcow2.h"

#include <errno.h>
#include <unistd.h>

#define MAX_PACKETS  32
#define PACKET_ROOM  (16 * MiB) /* wanted at most for all that are on their way */
#define INLINE_BYTES 1024	/* clusters up to here are not worth a hop */

/* One cluster on its way. */
struct packet {
	struct list link;
	struct codecs *codecs; /* the packer's */
	u8 *in, *out;	       /* a cluster each; `in` for data in pieces */
	const u8 *data;
	s64 packed; /* bytes of `out`, or negative */
	u64 ticket;
	/* For the fiber that carries it. */
	struct image_group *group;
	struct qcow2 *q;
	u64 goff;
	struct iovec whole; /* guest bytes */
};

struct packer {
	u64 next;	  /* place for more data, inside a host cluster; 0: none open */
	struct list idle; /* packets */
	u32 n, max;
	u64 handed, turn; /* tickets given; the one that is to find its place next */
	struct fiber_queue wait_packet, wait_turn;
	struct fiber_mutex submit; /* the clusters of one request stay together */
	struct codecs codecs;
};

static struct packer *packer_get(struct qcow2 *q)
{
	struct packer *p = q->packer;

	if (p)
		return p;
	p = q->packer = try_alloc(sizeof(*p));
	if (!p)
		return NULL;
	/* More than there are cores, so that they never wait for the loop. */
	p->max = (u32)MAX(sysconf(_SC_NPROCESSORS_ONLN), 2l) + 2;
	p->max = MIN(MAX(p->max, (u32)(PACKET_ROOM / q->cluster_bytes)), (u32)MAX_PACKETS);
	list_init(&p->idle);
	fiber_queue_init(&p->wait_packet);
	fiber_queue_init(&p->wait_turn);
	fiber_mutex_init(&p->submit);
	codecs_init(&p->codecs, compression_type(q));
	return p;
}

static void packet_free(struct packet *k)
{
	free(k->in);
	free(k->out);
	free(k);
}

void pack_fini(struct qcow2 *q)
{
	struct packer *p = q->packer;
	struct list *pos;

	if (!p)
		return;
	assert(p->turn == p->handed);
	while ((pos = list_pop(&p->idle)))
		packet_free(list_entry(pos, struct packet, link));
	codecs_fini(&p->codecs);
	free(p);
	q->packer = NULL;
}

void pack_close(struct qcow2 *q, u64 hoff, u64 clusters)
{
	struct packer *p = q->packer;

	if (p && p->next >= hoff && p->next < hoff + (clusters << q->cluster_bits))
		p->next = 0;
}

static struct packet *packet_new(const struct qcow2 *q)
{
	struct packet *k = try_alloc(sizeof(*k));

	if (!k)
		return NULL;
	k->codecs = &q->packer->codecs;
	k->out = try_alloc_aligned(q->cluster_bytes, 4096);
	if (k->out)
		return k;
	packet_free(k);
	return NULL;
}

/* An idle packet; waits for one unless there is none at all to come. */
static struct packet *packet_take(struct fiber *f, struct qcow2 *q)
{
	struct packer *p = q->packer;
	struct packet *k;

	for (;;) {
		if (!list_empty(&p->idle))
			return list_entry(list_pop(&p->idle), struct packet, link);
		k = p->n < p->max ? packet_new(q) : NULL;
		if (k)
			p->n++;
		if (k || !p->n)
			return k;
		fiber_queue_wait(f, &p->wait_packet);
	}
}

static void packet_put(struct packer *p, struct packet *k)
{
	list_append(&p->idle, &k->link);
	fiber_queue_wake_one(&p->wait_packet);
}

/* --- a place in the file ------------------------------------------------------ */

/* One more reference to the open host cluster: 1 done, 0 it is open no more. */
static int join(struct fiber *f, struct qcow2 *q)
{
	struct packer *p = q->packer;
	u64 cluster = p->next >> q->cluster_bits, at = p->next, have;
	u32 i = (u32)(cluster & (q->refblock_entries - 1));
	struct table *t;
	int ret = refblock_get(f, q, cluster >> q->refblock_bits, &t);

	if (ret < 0)
		return ret;
	if (p->next != at)
		return 0;
	have = t ? refcount_load(q, t->data, i) : 0;
	if (!have || have == refcount_max(q)) {
		p->next = 0;
		return 0;
	}
	refblock_set(q, t, i, have + 1);
	return 1;
}

static void place_taken(struct qcow2 *q, u64 end)
{
	q->packer->next = is_aligned(end, q->cluster_bytes) ? 0 : end;
}

/* A fresh host cluster, and the open one before it if it follows right behind. */
static int place_fresh(struct fiber *f, struct qcow2 *q, u64 bytes, u64 *hoff)
{
	struct packer *p = q->packer;
	struct alloc a;
	int ret = cluster_alloc(f, q, 1, &a);

	if (ret < 0)
		return ret;
	*hoff = a.hoff;
	if (p->next && cluster_ceil(q, p->next) == a.hoff) {
		u64 at = p->next;

		ret = join(f, q);
		if (ret > 0)
			*hoff = at;
	}
	if (ret < 0)
		cluster_free(q, a.hoff, 1);
	else
		place_taken(q, *hoff + bytes);
	return ret < 0 ? ret : 0;
}

/* Where `bytes` of data go, less than a cluster; one caller at a time. */
static int place(struct fiber *f, struct qcow2 *q, u64 bytes, u64 *hoff)
{
	struct packer *p = q->packer;

	assert(bytes > 0 && bytes <= q->cluster_bytes);
	*hoff = p->next;
	if (p->next && cluster_ceil(q, p->next) - p->next >= bytes) {
		int ret = join(f, q);

		if (ret > 0)
			place_taken(q, *hoff + bytes);
		if (ret)
			return MIN(ret, 0);
	}
	return place_fresh(f, q, bytes, hoff);
}

/* --- one cluster --------------------------------------------------------------- */

static int pack(void *arg)
{
	struct packet *k = arg;
	u64 bytes = k->q->cluster_bytes;
	struct codec *c = codecs_take(k->codecs);

	k->packed = -ENOMEM;
	if (!c)
		return 0;
	/* What does not get smaller is stored as it is. */
	k->packed = codec_pack(c, k->data, bytes, k->out, bytes - 1);
	codecs_put(k->codecs, c);
	return 0;
}

/* The entry may be changed: nothing but a hole or plain zeros is replaced, as in
 * the reference. */
static int may_link(const struct qcow2 *q, const struct table *t, u32 i)
{
	u64 entry = l2_entry(t, i);
	enum extent_kind kind = l2_kind(q, entry);

	if (q->corrupt || kind == EXTENT_COMPRESSED || entry & ENTRY_HOFF)
		return -EIO;
	return 0;
}

/* Write the data at their place and link them.  Holds the guest cluster's lock. */
static int write_locked(struct fiber *f, const struct packet *k, u64 hoff, u64 bytes, u64 entry)
{
	struct qcow2 *q = k->q;
	u32 l1_index = (u32)(k->goff >> (q->cluster_bits + q->l2_bits));
	u32 i = (u32)(k->goff >> q->cluster_bits) & (q->l2_entries - 1);
	struct table *t;
	int ret = l2_get_writable(f, q, l1_index, &t);

	if (ret == 0)
		ret = may_link(q, t, i);
	if (ret == 0)
		ret = overlap_check(f, q, hoff, bytes);
	if (ret < 0)
		return ret;
	inflate_forget(q, hoff, bytes);
	ret = qcow2_pwrite(f, q, hoff, k->out, bytes);
	if (ret == 0)
		ret = l2_get_writable(f, q, l1_index, &t);
	if (ret == 0)
		ret = may_link(q, t, i);
	if (ret == 0)
		l2_set(q, t, i, entry);
	return ret;
}

static int write_packed(struct fiber *f, struct packet *k, u64 hoff, u64 bytes)
{
	struct qcow2 *q = k->q;
	u64 start = cluster_floor(q, hoff), entry;
	struct range_lock lock;
	struct io_track io;
	int ret = -EFBIG;

	io_begin(q, &io);
	range_lock(f, &q->cluster_locks, &lock, k->goff, q->cluster_bytes, true);
	if (compressed_encode(q, hoff, bytes, &entry))
		ret = write_locked(f, k, hoff, bytes, entry);
	range_unlock(&q->cluster_locks, &lock);
	io_end(&io);
	if (ret < 0) /* nothing points at it */
		cluster_free(q, start, (cluster_ceil(q, hoff + bytes) - start) >> q->cluster_bits);
	return ret;
}

/* Incompressible. */
static int write_plain(struct fiber *f, const struct packet *k)
{
	struct extent e;
	int ret = 0;

	/* More than one extent with subclusters only. */
	for (u64 at = 0; at < k->whole.iov_len && ret == 0; at += e.bytes) {
		ret = l2_map(f, k->q, k->goff + at, k->whole.iov_len - at, &e);
		if (ret == 0 && (e.placed || e.hoff))
			ret = -EIO;
	}
	return ret < 0 ? ret : qcow2_write(f, &k->q->img, k->goff, &k->whole, 1);
}

/* From the packet's turn on: the place, the data, the link. */
static int packet_store(struct fiber *f, struct packet *k)
{
	struct packer *p = k->q->packer;
	u64 hoff = 0, bytes = 0;
	int ret = 0;

	while (p->turn != k->ticket)
		fiber_queue_wait(f, &p->wait_turn);
	if (k->packed > 0) {
		bytes = align_up((u64)k->packed, k->q->img.below->request_align);
		memset(k->out + k->packed, 0, bytes - (u64)k->packed);
		ret = place(f, k->q, bytes, &hoff);
	} else if (k->packed == -ENOSPC) {
		ret = write_plain(f, k); /* in turn: it takes a place too */
	} else {
		ret = (int)k->packed;
	}
	p->turn++;
	fiber_queue_wake_all(&p->wait_turn);
	return ret == 0 && bytes ? write_packed(f, k, hoff, bytes) : ret;
}

static int packet_run(struct fiber *f, struct packet *k)
{
	struct packer *p = k->q->packer;
	int ret;

	if (k->q->cluster_bytes <= INLINE_BYTES)
		pack(k);
	else
		pool_call(f, pack, k);
	ret = packet_store(f, k);
	packet_put(p, k);
	return ret;
}

static void packet_fiber(struct fiber *f, void *arg)
{
	struct packet *k = arg;
	struct image_group *g = k->group;
	int ret = packet_run(f, k);

	if (ret < 0 && !g->error)
		g->error = ret;
	g->pending--;
	fiber_queue_wake_all(&g->wait);
}

/* --- a request ------------------------------------------------------------------ */

/* Data in one piece stay where they are; others, and the short end of a disk, are
 * copied. */
static int take_data(struct packet *k, const struct image_transfer *t)
{
	u64 cluster = k->q->cluster_bytes, skip = t->skip;
	unsigned i = 0;

	while (skip >= t->iov[i].iov_len)
		skip -= t->iov[i++].iov_len;
	if (t->bytes == cluster && t->iov[i].iov_len - skip >= cluster) {
		k->whole = (struct iovec){(u8 *)t->iov[i].iov_base + skip, cluster};
	} else {
		if (!k->in)
			k->in = try_alloc_aligned(cluster, 4096);
		if (!k->in)
			return -ENOMEM;
		iov_copy_from(t->iov, t->n, t->skip, k->in, t->bytes);
		memset(k->in + t->bytes, 0, cluster - t->bytes);
		k->whole = (struct iovec){k->in, t->bytes};
	}
	k->data = k->whole.iov_base;
	return 0;
}

/* Hand in one cluster: what lies `skip` bytes into the vector. */
static int submit(struct fiber *f, struct qcow2 *q, const struct image_transfer *t,
		  struct image_group *g)
{
	struct packet *k;
	int ret = write_begin(f, q);

	if (ret < 0)
		return ret;
	k = packet_take(f, q);
	if (!k)
		return -ENOMEM;
	k->q = q;
	k->group = g;
	k->goff = t->offset + t->skip;
	bitmaps_mark(q, k->goff, t->bytes);
	ret = take_data(k, t);
	if (ret < 0) {
		packet_put(q->packer, k);
		return ret;
	}
	k->ticket = q->packer->handed++;
	if (fiber_spawn(fiber_loop(f), packet_fiber, k) < 0)
		return packet_run(f, k);
	g->pending++;
	return 0;
}

static int submit_all(struct fiber *f, struct qcow2 *q, struct image_transfer *t, u64 bytes)
{
	struct image_group group;
	int ret = 0, group_ret;

	image_group_init(&group);
	change_begin(f, q);
	fiber_mutex_lock(f, &q->packer->submit);
	while (t->skip < bytes && ret == 0 && !group.error) {
		t->bytes = MIN(bytes - t->skip, q->cluster_bytes);
		ret = submit(f, q, t, &group);
		t->skip += t->bytes;
	}
	fiber_mutex_unlock(f, &q->packer->submit);
	group_ret = image_group_wait(f, &group);
	change_end(q);
	return ret < 0 ? ret : group_ret;
}

int qcow2_write_compressed(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
			   unsigned n)
{
	struct qcow2 *q = to_qcow2(img);
	struct image_transfer t = {.img = img, .offset = goff, .iov = iov, .n = n};
	u64 bytes = iov_bytes(iov, n), end;

	assert(img->driver == &qcow2_driver);
	if (!img->writable)
		return -EROFS;
	if (!add_ok(goff, bytes, &end) || end > img->bytes || !is_aligned(goff, q->cluster_bytes) ||
	    (!is_aligned(end, q->cluster_bytes) && end != img->bytes))
		return -EINVAL;
	if (be32_get(q->head.crypt_method) || q->data_external)
		return -ENOTSUP;
	if (!packer_get(q))
		return -ENOMEM;
	return submit_all(f, q, &t, bytes);
}
