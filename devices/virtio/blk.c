/* virtio-blk: a drive on a virtqueue.  virtio 1.2, section 5.2.
 *
 * Queues are served on the drive's loop thread: the doorbell's eventfd is watched
 * there, requests go to blk_submit with vectors into guest memory, completions are
 * shown to the driver once per turn of the loop.  The loop thread never takes the
 * device's lock.
 *
 * Invariants: B1 every request comes from its queue's pool, so at most a queue's
 * size of them is in flight and none is allocated while running; B2 a queue with
 * an empty pool is `stalled` and looked at again when a request returns; B3 after
 * `quiet` is set the loop thread touches nothing here until the next start. */
#include "devices/virtio/blk.h"

#include "base/bytes.h"
#include "base/io.h"
#include "base/log.h"
#include "block/blk.h"
#include "devices/disk.h"
#include "devices/virtio/pci.h"

#include <errno.h>
#include <stdio.h>

#define VIRTIO_TYPE_BLK	 2
#define LEGACY_DEVICE_ID 0x1001
#define PCI_CLASS_SCSI	 0x010000 /* mass storage, as transitional drivers know it */
#define SECTOR		 512
#define SERIAL_BYTES	 20
#define HEADER_BYTES	 16
#define SEGMENT_BYTES	 16	  /* of discard and write zeroes */
#define SEGMENT_SECTORS	 0x3fffff /* most that one may cover */
#define CONFIG_WRITEBACK 32	  /* offset of the byte that drivers write */
#define CONFIG_BYTES	 60
#define MAX_SECTOR	 (INT64_MAX / SECTOR)

enum {
	F_SEG_MAX = 2,
	F_GEOMETRY = 4,
	F_RO = 5,
	F_BLK_SIZE = 6,
	F_FLUSH = 9,
	F_TOPOLOGY = 10,
	F_CONFIG_WCE = 11,
	F_MQ = 12,
	F_DISCARD = 13,
	F_WRITE_ZEROES = 14,
};

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };

#define SEGMENT_UNMAP 1

struct vblk_queue;

struct vblk_req {
	struct blk_req blk;
	struct vblk_queue *queue; /* [const] */
	u16 index;		  /* [const] in the pool */
	u16 head;
	u32 written;	     /* bytes of the driver's buffers, the status among them */
	struct iovec status; /* one byte */
	struct iovec *in;    /* what a read writes to */
	unsigned n_in;
	struct iovec iov[];
};

struct vblk_queue {
	struct virtio_blk *v; /* [const] */
	struct virtq *vq;     /* [const] */
	unsigned number;      /* [const] */
	struct loop_watch watch;
	u8 *pool;	  /* [const] max_size requests, req_bytes each */
	size_t req_bytes; /* [const] */
	u16 *free;	  /* [loop] stack of indices, so that few requests stay warm */
	u16 n_free;	  /* [loop] */
	bool stalled;	  /* [loop] B2 */
};

struct virtio_blk {
	struct virtio_pci vp;
	struct disk_props disk;	   /* [const] */
	u32 prop_queues;	   /* [const] */
	u32 prop_queue_size;	   /* [const] */
	bool prop_discard;	   /* [const] */
	bool prop_write_zeroes;	   /* [const] */
	bool wce;		   /* [atomic] the configuration's writeback byte */
	struct vblk_queue *queues; /* [const] vp.n_queues of them */
	struct loop_idle idle;	   /* [loop] */
	u32 in_flight;		   /* [loop] */
	bool stopping;		   /* [loop] */
	struct mutex quiet_lock;
	struct cond quiet_cond;
	bool quiet; /* [quiet_lock] B3 */
	struct blk_watcher watcher;
};

static struct virtio_blk *vblk_of(struct virtio_pci *vp)
{
	return container_of(vp, struct virtio_blk, vp);
}

/* --- the request pool ------------------------------------------------------------- */

static struct vblk_req *pool_req(const struct vblk_queue *q, unsigned index)
{
	return (struct vblk_req *)(void *)(q->pool + index * q->req_bytes);
}

static struct vblk_req *pool_get(struct vblk_queue *q)
{
	struct vblk_req *r;

	assert(q->n_free);
	r = pool_req(q, q->free[--q->n_free]);
	r->queue = q;
	r->index = q->free[q->n_free];
	return r;
}

static void pool_put(struct vblk_req *r)
{
	struct vblk_queue *q = r->queue;

	q->free[q->n_free++] = r->index;
}

/* --- completion ------------------------------------------------------------------- */

/* Everything is back: nobody may touch v on this thread any more (B3). */
static void go_quiet(struct virtio_blk *v)
{
	loop_idle_del(&v->idle);
	for (unsigned i = 0; i < v->vp.n_queues; i++)
		if (v->queues[i].vq->running && virtq_flush(v->queues[i].vq))
			virtio_pci_interrupt(&v->vp, i);
	LOCK_SCOPE(&v->quiet_lock);
	v->quiet = true;
	cond_broadcast(&v->quiet_cond);
}

/* The driver sees it at the next virtq_flush. */
static void complete(struct vblk_req *r, u8 status)
{
	struct vblk_queue *q = r->queue;
	struct virtio_blk *v = q->v;

	*(u8 *)r->status.iov_base = status;
	mem_mark_dirty_iov(q->vq->mem, &r->status, 1, 1);
	virtq_push(q->vq, r->head, r->written);
	pool_put(r);
	if (--v->in_flight == 0 && v->stopping)
		go_quiet(v);
}

/* It goes back to its queue, which shows it to us again when the machine goes on. */
static void keep(struct vblk_req *r)
{
	struct virtio_blk *v = r->queue->v;

	virtq_keep(r->queue->vq, r->head);
	pool_put(r);
	machine_request(v->vp.pd.dev.machine, MACHINE_IO_ERROR, 0);
	if (--v->in_flight == 0 && v->stopping)
		go_quiet(v);
}

static void request_done(struct blk_req *req, int ret)
{
	struct vblk_req *r = container_of(req, struct vblk_req, blk);
	enum blk_on_error action = BLK_REPORT;

	if (unlikely(ret < 0))
		action = blk_on_error(r->queue->v->disk.blk, req->op, ret);
	if (unlikely(action == BLK_STOP)) {
		keep(r);
		return;
	}
	if (unlikely(action == BLK_IGNORE))
		ret = 0;
	if (req->op == BLK_READ)
		mem_mark_dirty_iov(r->queue->vq->mem, r->in, r->n_in, req->bytes);
	if (ret < 0)
		TRACE(TRACE_VIRTIO, "%s: op %d at %llu: %d", r->queue->v->vp.pd.dev.id, req->op,
		      (unsigned long long)req->goff, ret);
	complete(r, ret == 0 ? S_OK : S_IOERR);
}

/* --- requests --------------------------------------------------------------------- */

/* Cut bytes off the front of a vector. */
static void trim_front(struct iovec **iov, unsigned *n, size_t bytes)
{
	while (bytes && *n && (*iov)->iov_len <= bytes) {
		bytes -= (*iov)->iov_len;
		++*iov;
		--*n;
	}
	if (bytes && *n) {
		(*iov)->iov_base = (u8 *)(*iov)->iov_base + bytes;
		(*iov)->iov_len -= bytes;
	}
}

/* Cut the last byte off a vector. */
static struct iovec take_last_byte(struct iovec *iov, unsigned *n)
{
	struct iovec *last = &iov[*n - 1];
	struct iovec byte = {(u8 *)last->iov_base + last->iov_len - 1, 1};

	if (--last->iov_len == 0)
		--*n;
	return byte;
}

/* Without its say in the matter, a driver that cannot flush gets durable writes:
 * section 5.2.6.2. */
static bool writes_are_durable(struct virtio_blk *v)
{
	if (!blk_write_cache(v->disk.blk))
		return false; /* they are so anyway */
	if (virtio_has(&v->vp, F_CONFIG_WCE))
		return !__atomic_load_n(&v->wce, __ATOMIC_RELAXED);
	return !virtio_has(&v->vp, F_FLUSH);
}

static void submit_data(struct vblk_req *r, enum blk_op op, u64 sector, const struct iovec *iov,
			unsigned n)
{
	struct virtio_blk *v = r->queue->v;

	if (sector > MAX_SECTOR || (op == BLK_WRITE && blk_is_readonly(v->disk.blk)) ||
	    !is_aligned(sector * SECTOR | iov_bytes(iov, n), v->disk.logical_bytes)) {
		complete(r, S_IOERR);
		return;
	}
	r->blk = (struct blk_req){.op = op,
				  .goff = sector * SECTOR,
				  .iov = iov,
				  .niov = n,
				  .bytes = iov_bytes(iov, n),
				  .done = request_done};
	if (op == BLK_WRITE && writes_are_durable(v))
		r->blk.flags = BLK_FUA;
	if (r->blk.bytes)
		blk_submit(v->disk.blk, &r->blk);
	else
		complete(r, S_OK);
}

static void submit_flush(struct vblk_req *r)
{
	r->blk = (struct blk_req){.op = BLK_FLUSH, .done = request_done};
	blk_submit(r->queue->v->disk.blk, &r->blk);
}

static void answer_id(struct vblk_req *r)
{
	struct virtio_blk *v = r->queue->v;
	const char *serial = v->disk.serial ? v->disk.serial : blk_id(v->disk.blk);
	char id[SERIAL_BYTES] = {0};
	u64 bytes = MIN(iov_bytes(r->in, r->n_in), (u64)sizeof(id));

	memcpy(id, serial, MIN(strlen(serial), sizeof(id)));
	iov_copy_to(r->in, r->n_in, 0, id, bytes);
	mem_mark_dirty_iov(r->queue->vq->mem, r->in, r->n_in, bytes);
	complete(r, S_OK);
}

/* Discard and write zeroes: one segment, section 5.2.6.2. */
static void submit_range(struct vblk_req *r, u32 type, const struct iovec *iov, unsigned n)
{
	struct virtio_blk *v = r->queue->v;
	bool discard = type == T_DISCARD;
	u8 segment[SEGMENT_BYTES];
	u32 sectors, flags;
	u64 sector;

	if (!virtio_has(&v->vp, discard ? F_DISCARD : F_WRITE_ZEROES) ||
	    iov_bytes(iov, n) != sizeof(segment)) {
		complete(r, S_UNSUPP);
		return;
	}
	iov_copy_from(iov, n, 0, segment, sizeof(segment));
	sector = load_le64(segment);
	sectors = load_le32(segment + 8);
	flags = load_le32(segment + 12);
	if (flags & ~(discard ? 0u : SEGMENT_UNMAP)) {
		complete(r, S_UNSUPP);
		return;
	}
	if (sector > MAX_SECTOR || sectors > SEGMENT_SECTORS || blk_is_readonly(v->disk.blk)) {
		complete(r, S_IOERR);
		return;
	}
	r->blk = (struct blk_req){.op = discard ? BLK_DISCARD : BLK_ZERO,
				  .flags = flags & SEGMENT_UNMAP ? BLK_MAY_UNMAP : 0,
				  .goff = sector * SECTOR,
				  .bytes = (u64)sectors * SECTOR,
				  .done = request_done};
	if (!discard && writes_are_durable(v))
		r->blk.flags |= BLK_FUA;
	if (sectors)
		blk_submit(v->disk.blk, &r->blk);
	else
		complete(r, S_OK);
}

/* A request was popped into r: false when it is not one. */
static bool submit(struct vblk_req *r, const struct virtq_chain *c)
{
	struct iovec *out = c->out.iov;
	unsigned n_out = c->out.n;
	u8 header[HEADER_BYTES];
	u32 type;
	u64 sector;

	if (c->out_bytes < HEADER_BYTES || !c->in_bytes)
		return false;
	r->head = c->head;
	r->written = (u32)MIN(c->in_bytes, (u64)UINT32_MAX);
	r->in = c->in.iov;
	r->n_in = c->in.n;
	r->status = take_last_byte(r->in, &r->n_in);
	iov_copy_from(out, n_out, 0, header, sizeof(header));
	trim_front(&out, &n_out, HEADER_BYTES);
	type = load_le32(header);
	sector = load_le64(header + 8);
	switch (type) {
	case T_IN: submit_data(r, BLK_READ, sector, r->in, r->n_in); break;
	case T_OUT: submit_data(r, BLK_WRITE, sector, out, n_out); break;
	case T_FLUSH: submit_flush(r); break;
	case T_GET_ID: answer_id(r); break;
	case T_DISCARD:
	case T_WRITE_ZEROES: submit_range(r, type, out, n_out); break;
	default: complete(r, S_UNSUPP);
	}
	return true;
}

/* --- serving a queue, on the loop thread -------------------------------------------- */

/* Pop and submit one: as virtq_pop. */
static int serve_one(struct vblk_queue *q)
{
	struct vblk_req *r = pool_get(q);
	struct virtq_chain c = {.iov = r->iov, .room = q->vq->max_size + VIRTQ_SPARE_IOV};
	int ret = virtq_pop(q->vq, &c);

	if (ret <= 0) {
		pool_put(r);
		return ret;
	}
	q->v->in_flight++;
	if (submit(r, &c))
		return 1;
	q->v->in_flight--;
	pool_put(r);
	virtq_refuse(q->vq, "request without header or status");
	return -EINVAL;
}

static void serve(struct vblk_queue *q)
{
	int ret = 1;

	if (q->vq->broken || q->v->stopping)
		return;
	do {
		virtq_quiet(q->vq);
		while (q->n_free && ret > 0)
			ret = serve_one(q);
		q->stalled = ret > 0;
		if (q->stalled)
			return; /* kicks stay off until a request returns */
		if (ret < 0) {
			virtio_pci_queue_broke(&q->v->vp, q->number);
			return;
		}
		ret = 1;
	} while (virtq_listen(q->vq));
}

static void kicked(struct loop_watch *watch, u32 revents)
{
	serve(container_of(watch, struct vblk_queue, watch));
}

/* Once per turn: one index update and at most one interrupt for all that is done. */
static void turn_ends(struct loop_idle *idle)
{
	struct virtio_blk *v = container_of(idle, struct virtio_blk, idle);

	for (unsigned i = 0; i < v->vp.n_queues; i++) {
		struct vblk_queue *q = &v->queues[i];

		if (!q->vq->running)
			continue;
		if (q->stalled && q->n_free)
			serve(q);
		if (virtq_flush(q->vq))
			virtio_pci_interrupt(&v->vp, i);
	}
}

static void start_on_loop(void *arg)
{
	struct virtio_blk *v = arg;
	struct loop *loop = blk_loop(v->disk.blk);

	v->stopping = false;
	loop_idle_add(loop, &v->idle, turn_ends);
	for (unsigned i = 0; i < v->vp.n_queues; i++) {
		struct vblk_queue *q = &v->queues[i];

		q->stalled = false;
		if (!q->vq->running)
			continue;
		loop_watch_bell(loop, &q->watch, v->vp.queues[i].kick_fd, kicked);
		serve(q);
	}
}

static void stop_on_loop(void *arg)
{
	struct virtio_blk *v = arg;

	v->stopping = true;
	for (unsigned i = 0; i < v->vp.n_queues; i++)
		if (v->queues[i].vq->running)
			loop_watch_del(&v->queues[i].watch);
	blk_start_waiting(v->disk.blk);
	if (!v->in_flight)
		go_quiet(v);
}

static void vblk_start(struct virtio_pci *vp)
{
	struct virtio_blk *v = vblk_of(vp);

	mutex_lock(&v->quiet_lock);
	v->quiet = false;
	mutex_unlock(&v->quiet_lock);
	loop_call_wait(blk_loop(v->disk.blk), start_on_loop, v);
}

static void vblk_stop(struct virtio_pci *vp)
{
	struct virtio_blk *v = vblk_of(vp);

	loop_call_wait(blk_loop(v->disk.blk), stop_on_loop, v);
	mutex_lock(&v->quiet_lock);
	while (!v->quiet)
		cond_wait(&v->quiet_cond, &v->quiet_lock);
	mutex_unlock(&v->quiet_lock);
}

/* --- configuration ------------------------------------------------------------------ */

/* Section 5.2.4. */
static void vblk_config_get(struct virtio_pci *vp, u8 *c)
{
	struct virtio_blk *v = vblk_of(vp);
	u64 sectors = blk_bytes(v->disk.blk) / SECTOR;
	u64 cylinders = MIN(sectors / (16 * 63), (u64)65535);
	const struct disk_props *disk = &v->disk;
	u32 block = disk->logical_bytes, min_io = disk->min_io_bytes;
	u32 granularity = disk->granularity == DISK_SIZE_AUTO ? MAX(block, disk->physical_bytes)
							      : MAX(disk->granularity, block);

	store_le64(c, sectors);
	store_le32(c + 12, v->prop_queue_size - 2); /* seg_max: all but header and status */
	store_le16(c + 16, (u16)cylinders);
	c[18] = 16; /* heads */
	c[19] = 63; /* sectors */
	store_le32(c + 20, block);
	c[24] = (u8)__builtin_ctz(disk->physical_bytes / block);
	store_le16(c + 26, (u16)MIN((min_io ? min_io : disk->physical_bytes) / block, 0xffffu));
	store_le32(c + 28, disk->opt_io_bytes / block);
	c[CONFIG_WRITEBACK] = __atomic_load_n(&v->wce, __ATOMIC_RELAXED);
	store_le16(c + 34, vp->n_queues);
	store_le32(c + 36, SEGMENT_SECTORS);
	store_le32(c + 40, 1); /* segments of a discard */
	store_le32(c + 44, granularity / SECTOR);
	store_le32(c + 48, SEGMENT_SECTORS);
	store_le32(c + 52, 1); /* segments of write zeroes */
	c[56] = 1;	       /* which may unmap */
}

static void vblk_config_set(struct virtio_pci *vp, u32 off, u8 value)
{
	struct virtio_blk *v = vblk_of(vp);

	if (off == CONFIG_WRITEBACK && virtio_has(vp, F_CONFIG_WCE))
		__atomic_store_n(&v->wce, value & 1, __ATOMIC_RELAXED);
}

static void resized(struct blk_watcher *w)
{
	virtio_pci_config_changed(&container_of(w, struct virtio_blk, watcher)->vp);
}

static const struct virtio_ops vblk_ops = {.config_get = vblk_config_get,
					   .config_set = vblk_config_set,
					   .start = vblk_start,
					   .stop = vblk_stop};

/* --- life cycle ---------------------------------------------------------------------- */

static u64 features(const struct virtio_blk *v)
{
	u64 f = 1u << F_SEG_MAX | 1u << F_GEOMETRY | 1u << F_BLK_SIZE | 1u << F_FLUSH |
		1u << F_TOPOLOGY | 1u << F_CONFIG_WCE;

	if (v->prop_queues > 1)
		f |= 1u << F_MQ;
	if (blk_is_readonly(v->disk.blk))
		return f | 1u << F_RO;
	if (v->prop_discard)
		f |= 1u << F_DISCARD;
	if (v->prop_write_zeroes)
		f |= 1u << F_WRITE_ZEROES;
	return f;
}

static int check_props(const struct virtio_blk *v, struct error *err)
{
	const char *id = v->vp.pd.dev.id;
	int ret = disk_props_apply(&v->disk, &v->vp.pd.dev, err);

	if (ret < 0)
		return ret;
	if (!blk_has_medium(v->disk.blk))
		return err_set(err, -ENOMEDIUM, "Device needs media, but drive is empty");
	if (!v->prop_queues)
		return err_set(err, -EINVAL, "num-queues property must be larger than 0");
	if (v->prop_queues > VIRTIO_MAX_QUEUES)
		return err_set(err, -EINVAL, "%s: num-queues is %u, expected 1..%u", id,
			       v->prop_queues, VIRTIO_MAX_QUEUES);
	if (!is_pow2(v->prop_queue_size) || v->prop_queue_size < 4 ||
	    v->prop_queue_size > VIRTQ_MAX_SIZE)
		return err_set(err, -EINVAL, "%s: queue-size is %u, expected a power of two, 4..%u",
			       id, v->prop_queue_size, VIRTQ_MAX_SIZE);
	return 0;
}

static void free_pools(struct virtio_blk *v)
{
	for (unsigned i = 0; v->queues && i < v->prop_queues; i++) {
		free(v->queues[i].pool);
		free(v->queues[i].free);
	}
	free(v->queues);
}

/* The pool is one zeroed block: pages of requests that are never needed at once
 * are never touched. */
static int make_pools(struct virtio_blk *v, struct error *err)
{
	size_t vector = (v->prop_queue_size + VIRTQ_SPARE_IOV) * sizeof(struct iovec);
	size_t req_bytes = sizeof(struct vblk_req) + vector;

	v->queues = xnew_n(struct vblk_queue, v->prop_queues);
	for (unsigned i = 0; i < v->prop_queues; i++) {
		struct vblk_queue *q = &v->queues[i];

		q->v = v;
		q->vq = &v->vp.queues[i].vq;
		q->number = i;
		q->req_bytes = req_bytes;
		q->free = xnew_n(u16, v->prop_queue_size);
		q->pool = try_alloc(req_bytes * v->prop_queue_size);
		if (!q->pool)
			return err_set(err, -ENOMEM, "%s: no memory for %u requests",
				       v->vp.pd.dev.id, v->prop_queue_size);
		for (unsigned n = 0; n < v->prop_queue_size; n++)
			q->free[q->n_free++] = (u16)(v->prop_queue_size - 1 - n);
	}
	return 0;
}

static int vblk_init(struct device *dev, struct error *err)
{
	struct virtio_blk *v = container_of(dev, struct virtio_blk, vp.pd.dev);
	struct virtio_setup setup = {
		.ops = &vblk_ops,
		.type = VIRTIO_TYPE_BLK,
		.legacy_id = LEGACY_DEVICE_ID,
		.class_code = PCI_CLASS_SCSI,
		.config_bytes = CONFIG_BYTES,
	};
	int ret = check_props(v, err);

	if (ret < 0)
		return ret;
	setup.features = features(v);
	setup.n_queues = (u16)v->prop_queues;
	setup.queue_size = (u16)v->prop_queue_size;
	ret = make_pools(v, err);
	if (ret == 0)
		ret = virtio_pci_init(&v->vp, &setup, err);
	if (ret < 0) {
		free_pools(v);
		return ret;
	}
	mutex_init(&v->quiet_lock);
	cond_init(&v->quiet_cond);
	v->watcher.changed = resized;
	blk_watch(v->disk.blk, &v->watcher);
	return 0;
}

static void vblk_reset(struct device *dev)
{
	struct virtio_blk *v = container_of(dev, struct virtio_blk, vp.pd.dev);
	bool wce = blk_write_cache(v->disk.blk) && strcmp(v->disk.write_cache, "off") != 0;

	virtio_pci_reset(&v->vp);
	__atomic_store_n(&v->wce, wce, __ATOMIC_RELAXED);
}

static void vblk_fini(struct device *dev)
{
	struct virtio_blk *v = container_of(dev, struct virtio_blk, vp.pd.dev);

	blk_unwatch(&v->watcher);
	virtio_pci_fini(&v->vp);
	free_pools(v);
	mutex_fini(&v->quiet_lock);
	cond_fini(&v->quiet_cond);
}

static int vblk_state_check(const void *loaded, struct error *err)
{
	const struct virtio_blk *v = loaded;

	return virtio_pci_state_check(&v->vp, err);
}

static const struct prop vblk_props[] = {
	VIRTIO_PCI_PROPS(struct virtio_blk, vp),
	DISK_PROPS(struct virtio_blk, disk, "4096"),
	PROP(struct virtio_blk, prop_queues, "num-queues", PROP_KIND_U32, "1", "1..16"),
	PROP(struct virtio_blk, prop_queue_size, "queue-size", PROP_KIND_U32, "256", "4..1024"),
	PROP(struct virtio_blk, prop_discard, "discard", PROP_KIND_BOOL, "on", "discard requests"),
	PROP(struct virtio_blk, prop_write_zeroes, "write-zeroes", PROP_KIND_BOOL, "on",
	     "write zeroes requests"),
	PROP_END,
};

static const struct state_field vblk_state[] = {
	STATE_STRUCT(struct virtio_blk, vp, virtio_pci_state),
	STATE(struct virtio_blk, wce),
	STATE_END,
};

const struct device_class virtio_blk_class = {
	.name = "virtio-blk-pci",
	.help = "virtio block device",
	.size = sizeof(struct virtio_blk),
	.bus = DEVICE_ON_PCI,
	.user_creatable = true,
	.props = vblk_props,
	.init = vblk_init,
	.reset = vblk_reset,
	.fini = vblk_fini,
	.state = vblk_state,
	.state_check = vblk_state_check,
	.post_load = virtio_pci_post_load,
	.pause = virtio_pci_pause,
	.resume = virtio_pci_resume,
};
