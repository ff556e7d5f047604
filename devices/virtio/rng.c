/* virtio-rng: entropy from the host.
 *
 * virtio 1.2, section 5.4.  One queue of buffers, each of which is filled with some random
 * bytes: from getrandom(2), or from a file that gives them (-object rng-random).  At most
 * max-bytes are given away in a period; whoever asks for more waits for the next.
 * Thread: main, with the device's lock.  Invariant: nothing is in flight between calls. */
#define _GNU_SOURCE /* getrandom */
#include "devices/virtio/rng.h"

#include "base/io.h"
#include "base/log.h"
#include "devices/virtio/served.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/random.h>

#define VIRTIO_TYPE_RNG	    4
#define LEGACY_DEVICE_ID    0x1005
#define PCI_CLASS_OTHER	    0x00ff00
#define QUEUE_SIZE	    8
#define BYTES_AT_ONCE	    4096 /* of a buffer that may be of any size */
#define RETRY_NS	    (NS_PER_SEC / 100)
#define MAX_BYTES_UNLIMITED "9223372036854775807"

struct virtio_rng {
	struct virtio_pci vp;
	struct virtio_served served;
	char *prop_source;   /* [const] a file; NULL: getrandom */
	u64 prop_max_bytes;  /* [const] in a period */
	u32 prop_period_ms;  /* [const] */
	int fd;		     /* [const] of the file; -1: none */
	struct timer period; /* [main] */
	struct timer retry;  /* [main] the file had nothing to give */
	bool failed;	     /* [dev.lock] the file gives no more */
	u64 left;	     /* [dev.lock] of this period; saved */
};

static struct virtio_rng *rng_of(struct virtio_pci *vp)
{
	return container_of(vp, struct virtio_rng, vp);
}

static struct virtio_rng *of_device(struct device *dev)
{
	return container_of(dev, struct virtio_rng, vp.pd.dev);
}

static u64 now(const struct virtio_rng *r)
{
	return clock_now(r->vp.pd.dev.machine->clock);
}

/* Bytes from the file: how many, 0: none at the moment, or never again. */
static u32 read_source(struct virtio_rng *r, u8 *to, u32 bytes)
{
	s64 n = sys_read(r->fd, to, bytes);

	if (n > 0)
		return (u32)n;
	if (n == -EAGAIN) {
		timer_set(&r->retry, now(r) + RETRY_NS);
		return 0;
	}
	log_error("%s: %s: %s", r->vp.pd.dev.id, r->prop_source,
		  n < 0 ? strerror((int)-n) : "there is no more");
	r->failed = true;
	return 0;
}

static u32 entropy(struct virtio_rng *r, u8 *to, u32 bytes)
{
	ssize_t n;

	if (r->failed)
		return 0;
	if (r->fd >= 0)
		return read_source(r, to, bytes);
	n = getrandom(to, bytes, 0);
	return n > 0 ? (u32)n : 0;
}

/* Fill the next buffer; false: none is left, or there is nothing to fill it with. */
static bool fill_one(struct virtio_rng *r)
{
	struct virtq *q = &r->vp.queues[0].vq;
	u8 bytes[BYTES_AT_ONCE];
	struct virtq_chain c;
	u32 n;

	if (!r->left || !served_pop(&r->served, 0, &c))
		return false;
	if (!c.in_bytes) {
		served_refuse(&r->served, 0, "a buffer that cannot be written");
		return false;
	}
	n = (u32)MIN(c.in_bytes, (u64)sizeof(bytes));
	n = entropy(r, bytes, (u32)MIN((u64)n, r->left));
	if (!n) {
		virtq_unpop(q, 1);
		return false;
	}
	virtq_push(q, c.head, served_put(&r->served, &c, bytes, n));
	explicit_bzero(bytes, n);
	r->left -= n;
	return true;
}

static void serve(struct virtio_pci *vp, unsigned queue)
{
	struct virtio_rng *r = rng_of(vp);
	unsigned most = SERVED_BATCH;
	u64 due;

	while (most-- && fill_one(r))
		;
	/* With nothing to give, the end of the period or the file calls again. */
	if (served_idle(&r->served, 0) && r->left && !r->failed && !timer_is_armed(&r->retry, &due))
		served_again(&r->served, 0);
}

static void serve_locked(struct virtio_rng *r)
{
	if (served_runs(&r->vp, 0))
		serve(&r->vp, 0);
}

static void start_period(struct virtio_rng *r)
{
	r->left = r->prop_max_bytes;
	if (r->prop_max_bytes < INT64_MAX)
		timer_set(&r->period, now(r) + (u64)r->prop_period_ms * (NS_PER_SEC / 1000));
}

static void period_ends(struct timer *timer)
{
	struct virtio_rng *r = container_of(timer, struct virtio_rng, period);

	LOCK_SCOPE(&r->vp.pd.dev.lock);
	start_period(r);
	serve_locked(r);
}

static void try_again(struct timer *timer)
{
	struct virtio_rng *r = container_of(timer, struct virtio_rng, retry);

	LOCK_SCOPE(&r->vp.pd.dev.lock);
	serve_locked(r);
}

/* --- the transport's calls -------------------------------------------------------------- */

static void config_get(struct virtio_pci *vp, u8 *config)
{
}

static void start(struct virtio_pci *vp)
{
	served_start(&rng_of(vp)->served);
}

static void stop(struct virtio_pci *vp)
{
}

static const struct virtio_ops ops = {.config_get = config_get, .start = start, .stop = stop};

/* --- life -------------------------------------------------------------------------------- */

static int open_source(struct virtio_rng *r, struct error *err)
{
	r->fd = -1;
	if (!r->prop_source || !*r->prop_source)
		return 0;
	r->fd = sys_open(r->prop_source, O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0);
	return r->fd < 0 ? err_set_errno(err, r->fd, "Could not open '%s'", r->prop_source) : 0;
}

static int rng_init(struct device *dev, struct error *err)
{
	static const struct virtio_setup setup = {
		.ops = &ops,
		.type = VIRTIO_TYPE_RNG,
		.legacy_id = LEGACY_DEVICE_ID,
		.class_code = PCI_CLASS_OTHER,
		.n_queues = 1,
		.queue_size = QUEUE_SIZE,
	};
	struct virtio_rng *r = of_device(dev);
	int ret;

	if (!r->prop_period_ms)
		return err_set(err, -EINVAL, "'period' parameter expects a positive integer");
	if (r->prop_max_bytes > INT64_MAX)
		return err_set(err, -EINVAL,
			       "'max-bytes' parameter must be non-negative, and "
			       "less than 2^63");
	ret = open_source(r, err);
	if (ret < 0)
		return ret;
	ret = virtio_pci_init(&r->vp, &setup, err);
	if (ret < 0) {
		if (r->fd >= 0)
			sys_close(r->fd);
		return ret;
	}
	timer_init(&r->period, dev->machine->clock, period_ends);
	timer_init(&r->retry, dev->machine->clock, try_again);
	served_init(&r->served, &r->vp, serve);
	return 0;
}

static void rng_reset(struct device *dev)
{
	struct virtio_rng *r = of_device(dev);

	virtio_pci_reset(&r->vp);
	start_period(r);
}

static void rng_fini(struct device *dev)
{
	struct virtio_rng *r = of_device(dev);

	timer_del(&r->period);
	timer_del(&r->retry);
	served_fini(&r->served);
	virtio_pci_fini(&r->vp);
	if (r->fd >= 0)
		sys_close(r->fd);
}

static const struct state_field rng_state[] = {
	STATE_STRUCT(struct virtio_rng, vp, virtio_pci_state),
	STATE(struct virtio_rng, left),
	STATE_END,
};

static int rng_check(const void *loaded, struct error *err)
{
	const struct virtio_rng *r = loaded;

	return virtio_pci_state_check(&r->vp, err);
}

static void rng_post_load(struct device *dev)
{
	struct virtio_rng *r = of_device(dev);
	u64 left = r->left;

	virtio_pci_post_load(dev);
	start_period(r);
	r->left = MIN(left, r->prop_max_bytes);
}

static const struct prop rng_props[] = {
	VIRTIO_PCI_PROPS(struct virtio_rng, vp),
	PROP(struct virtio_rng, prop_source, "rng", PROP_KIND_RNG, NULL,
	     "id of a source (-object); default: the kernel's"),
	PROP(struct virtio_rng, prop_max_bytes, "max-bytes", PROP_KIND_U64, MAX_BYTES_UNLIMITED,
	     "given to the guest in a period"),
	PROP(struct virtio_rng, prop_period_ms, "period", PROP_KIND_U32, "65536",
	     "of max-bytes, in milliseconds"),
	PROP_END,
};

const struct device_class virtio_rng_class = {
	.name = "virtio-rng-pci",
	.help = "virtio entropy source",
	.size = sizeof(struct virtio_rng),
	.bus = DEVICE_ON_PCI,
	.user_creatable = true,
	.props = rng_props,
	.init = rng_init,
	.reset = rng_reset,
	.fini = rng_fini,
	.state = rng_state,
	.state_check = rng_check,
	.post_load = rng_post_load,
	.pause = virtio_pci_pause,
	.resume = virtio_pci_resume,
};
