/* virtio-balloon: memory that the guest lends back to the host.
 *
 * virtio 1.2, section 5.5.  The driver puts numbers of 4 KiB pages that it can do
 * without into the inflate queue; the device makes holes of them (mem_discard), which
 * read as zeros and take memory again when they are written.  Deflating is a matter of
 * the guest's alone.  The third queue holds one buffer of statistics, which is given back
 * whenever new ones are wanted; with free page reporting another queue names memory
 * that is free for now.
 * Which queue is which depends on the features agreed on: section 5.5.2.
 * Thread: main, with the device's lock.  Invariant: nothing is in flight between calls;
 * the buffer of statistics stays in the ring until it is given back. */
#include "devices/virtio/balloon.h"

#include "base/bytes.h"
#include "base/io.h"
#include "devices/virtio/served.h"

#include <errno.h>

#define VIRTIO_TYPE_BALLOON 5
#define LEGACY_DEVICE_ID    0x1002
#define PCI_CLASS_OTHER	    0x00ff00
#define QUEUE_SIZE	    128
#define MAX_QUEUES	    4
#define PAGE_BITS	    12
#define PAGE_BYTES	    ((u64)1 << PAGE_BITS)
#define PFNS_AT_ONCE	    256
#define REQUESTS_A_TURN	    8  /* of 1024 pages each at most: milliseconds */
#define STAT_BYTES	    10 /* le16 tag, le64 value */
#define CONFIG_BYTES	    16

enum { BALLOON_F_MUST_TELL_HOST, BALLOON_F_STATS_VQ, BALLOON_F_DEFLATE_ON_OOM };
enum { BALLOON_F_PAGE_POISON = 4, BALLOON_F_REPORTING = 5 };
enum { Q_INFLATE, Q_DEFLATE, Q_STATS };
enum { CONFIG_NUM_PAGES = 0, CONFIG_ACTUAL = 4, CONFIG_POISON = 12 };

/* Tags of section 5.5.6.4, in their order. */
static const char *const stat_names[] = {
	"stat-swap-in",	     "stat-swap-out",	  "stat-major-faults",	   "stat-minor-faults",
	"stat-free-memory",  "stat-total-memory", "stat-available-memory", "stat-disk-caches",
	"stat-htlb-pgalloc", "stat-htlb-pgfail",
};

struct virtio_balloon {
	struct virtio_pci vp;
	struct virtio_served served;
	bool prop_oom, prop_reporting, prop_poison; /* [const] */
	u32 prop_interval;			    /* [const] seconds; 0: no statistics */
	struct timer poll;			    /* [main] */
	/* [dev.lock] */
	u32 num_pages, actual; /* to be in the balloon; that are, says the driver */
	u32 poison;	       /* what the driver fills free pages with */
	u32 known_stats;       /* bits by tag */
	u64 stats[ARRAY_LEN(stat_names)];
};

static struct virtio_balloon *balloon_of(struct virtio_pci *vp)
{
	return container_of(vp, struct virtio_balloon, vp);
}

static struct virtio_balloon *of_device(struct device *dev)
{
	return container_of(dev, struct virtio_balloon, vp.pd.dev);
}

static u64 ram_bytes(const struct machine *m)
{
	return m->ram_below_4g + m->ram_above_4g;
}

/* --- pages ------------------------------------------------------------------------- */

static void discard(struct virtio_balloon *b, u64 first, u64 pages)
{
	struct machine *m = b->vp.pd.dev.machine;

	if (pages && mem_discard(m->mem, first << PAGE_BITS, pages << PAGE_BITS) < 0)
		dev_guest_error(&b->vp.pd.dev, "%llu pages at %llu are not all RAM",
				(unsigned long long)pages, (unsigned long long)first);
}

/* Pages that follow one another, in either direction, go together. */
static void discard_pages(struct virtio_balloon *b, const u8 *pfns, unsigned n)
{
	u64 first = 0, pages = 0;

	for (unsigned i = 0; i < n; i++) {
		u64 pfn = load_le32(pfns + 4 * (size_t)i);

		if (pages && pfn == first + pages) {
			pages++;
		} else if (pages && pfn + 1 == first) {
			first--;
			pages++;
		} else {
			discard(b, first, pages);
			first = pfn;
			pages = 1;
		}
	}
	discard(b, first, pages);
}

static void take_pfns(struct virtio_balloon *b, const struct virtq_chain *c)
{
	u8 pfns[4 * PFNS_AT_ONCE];

	for (u64 at = 0, n; at + 4 <= c->out_bytes; at += n) {
		n = iov_copy_from(c->out.iov, c->out.n, at, pfns,
				  MIN(align_down(c->out_bytes - at, 4), sizeof(pfns)));
		discard_pages(b, pfns, (unsigned)(n / 4));
	}
}

/* One request names a page of numbers at most in any driver; more than that would keep
 * the main loop for long. */
static bool is_too_long(const struct virtq_chain *c)
{
	return c->out_bytes > PAGE_BYTES;
}

/* Pages that hold a pattern the guest counts on are not ours to empty. */
static void take_free_memory(struct virtio_balloon *b, const struct virtq_chain *c)
{
	if (!virtio_has(&b->vp, BALLOON_F_PAGE_POISON) || !b->poison)
		mem_discard_iov(b->vp.pd.dev.machine->mem, c->in.iov, c->in.n);
}

/* --- statistics ---------------------------------------------------------------------- */

static void take_stats(struct virtio_balloon *b, const struct virtq_chain *c)
{
	u8 stat[STAT_BYTES];

	b->known_stats = 0;
	for (unsigned i = 0; i < 2 * ARRAY_LEN(stat_names); i++) {
		u16 tag;

		if (iov_copy_from(c->out.iov, c->out.n, (u64)i * STAT_BYTES, stat, STAT_BYTES) <
		    STAT_BYTES)
			return;
		tag = load_le16(stat);
		if (tag >= ARRAY_LEN(stat_names))
			continue;
		b->known_stats |= 1u << tag;
		b->stats[tag] = load_le64(stat + 2);
	}
}

/* The driver has put new ones into its buffer, which stays where it is. */
static void look_at_stats(struct virtio_balloon *b)
{
	struct virtq *q = &b->vp.queues[Q_STATS].vq;
	struct virtq_chain c;
	u16 seen = virtq_waiting(q);

	if (served_pop(&b->served, Q_STATS, &c)) {
		take_stats(b, &c);
		virtq_unpop(q, 1);
	}
	/* It comes back as one more, after it was given back. */
	if (served_runs(&b->vp, Q_STATS) && virtq_listen_beyond(q, seen))
		served_again(&b->served, Q_STATS);
}

static void poll_again(struct virtio_balloon *b)
{
	if (b->prop_interval)
		timer_set(&b->poll, clock_now(b->vp.pd.dev.machine->clock) +
					    b->prop_interval * (u64)NS_PER_SEC);
}

static void poll_stats(struct timer *timer)
{
	struct virtio_balloon *b = container_of(timer, struct virtio_balloon, poll);
	struct virtq_chain c;

	LOCK_SCOPE(&b->vp.pd.dev.lock);
	if (virtio_has(&b->vp, BALLOON_F_STATS_VQ) && served_pop(&b->served, Q_STATS, &c)) {
		virtq_push(&b->vp.queues[Q_STATS].vq, c.head, 0);
		served_flush(&b->served, Q_STATS);
	}
	poll_again(b);
}

/* --- queues -------------------------------------------------------------------------- */

static bool is_stats(const struct virtio_balloon *b, unsigned queue)
{
	return queue == Q_STATS && virtio_has(&b->vp, BALLOON_F_STATS_VQ);
}

static bool is_reporting(const struct virtio_balloon *b, unsigned queue)
{
	unsigned first = virtio_has(&b->vp, BALLOON_F_STATS_VQ) ? Q_STATS + 1 : Q_STATS;

	return queue == first && virtio_has(&b->vp, BALLOON_F_REPORTING);
}

static void take_requests(struct virtio_balloon *b, unsigned queue)
{
	unsigned most = REQUESTS_A_TURN;
	struct virtq_chain c;

	while (most-- && served_pop(&b->served, queue, &c)) {
		if (is_too_long(&c)) {
			served_refuse(&b->served, queue, "more than 1024 pages in one request");
			return;
		}
		if (queue == Q_INFLATE)
			take_pfns(b, &c);
		else if (is_reporting(b, queue))
			take_free_memory(b, &c);
		virtq_push(&b->vp.queues[queue].vq, c.head, 0);
	}
}

static void serve(struct virtio_pci *vp, unsigned queue)
{
	struct virtio_balloon *b = balloon_of(vp);

	if (is_stats(b, queue)) {
		look_at_stats(b);
		return;
	}
	take_requests(b, queue);
	if (served_idle(&b->served, queue))
		served_again(&b->served, queue);
}

static void config_get(struct virtio_pci *vp, u8 *config)
{
	const struct virtio_balloon *b = balloon_of(vp);

	memset(config, 0, CONFIG_BYTES);
	store_le32(config + CONFIG_NUM_PAGES, b->num_pages);
	store_le32(config + CONFIG_ACTUAL, b->actual);
	store_le32(config + CONFIG_POISON, b->poison);
}

static void set_byte(u32 *field, u32 off, u8 value)
{
	*field = (*field & ~(0xffu << (8 * off))) | (u32)value << (8 * off);
}

static void config_set(struct virtio_pci *vp, u32 off, u8 value)
{
	struct virtio_balloon *b = balloon_of(vp);

	if (off >= CONFIG_ACTUAL && off < CONFIG_ACTUAL + 4)
		set_byte(&b->actual, off - CONFIG_ACTUAL, value);
	if (off >= CONFIG_POISON && off < CONFIG_POISON + 4)
		set_byte(&b->poison, off - CONFIG_POISON, value);
}

static void start(struct virtio_pci *vp)
{
	served_start(&balloon_of(vp)->served);
}

static void stop(struct virtio_pci *vp)
{
}

/* The driver is gone, and with it what it knew to be in the balloon. */
static void driver_reset(struct virtio_pci *vp)
{
	struct virtio_balloon *b = balloon_of(vp);

	b->actual = b->poison = b->known_stats = 0;
	memset(b->stats, 0, sizeof(b->stats));
}

static const struct virtio_ops ops = {.config_get = config_get,
				      .config_set = config_set,
				      .start = start,
				      .reset = driver_reset,
				      .stop = stop};

/* --- control ------------------------------------------------------------------------- */

struct device *balloon_find(struct machine *m)
{
	list_for_each (pos, &m->devices) {
		struct device *dev = list_entry(pos, struct device, link);

		if (dev->cls == &virtio_balloon_class)
			return dev;
	}
	return NULL;
}

void balloon_set_target(struct device *dev, u64 bytes)
{
	struct virtio_balloon *b = of_device(dev);
	u64 all = ram_bytes(dev->machine);
	u64 less = bytes < all ? all - bytes : 0;

	LOCK_SCOPE(&dev->lock);
	b->num_pages = (u32)MIN(less >> PAGE_BITS, (u64)UINT32_MAX);
	virtio_pci_config_changed(&b->vp);
}

u64 balloon_actual(struct device *dev)
{
	u64 all = ram_bytes(dev->machine);

	LOCK_SCOPE(&dev->lock);
	return all - MIN((u64)of_device(dev)->actual << PAGE_BITS, all);
}

bool balloon_stat(struct device *dev, unsigned n, const char **name, u64 *value)
{
	const struct virtio_balloon *b = of_device(dev);

	LOCK_SCOPE(&dev->lock);
	for (unsigned tag = 0; b->prop_interval && tag < ARRAY_LEN(stat_names); tag++) {
		if (!(b->known_stats >> tag & 1) || n--)
			continue;
		*name = stat_names[tag];
		*value = b->stats[tag];
		return true;
	}
	return false;
}

/* --- life ------------------------------------------------------------------------------ */

static int balloon_init(struct device *dev, struct error *err)
{
	struct virtio_balloon *b = of_device(dev);
	const struct virtio_setup setup = {
		.ops = &ops,
		.type = VIRTIO_TYPE_BALLOON,
		.legacy_id = LEGACY_DEVICE_ID,
		.class_code = PCI_CLASS_OTHER,
		.features = (u64)1 << BALLOON_F_STATS_VQ |
			    (u64)b->prop_oom << BALLOON_F_DEFLATE_ON_OOM |
			    (u64)b->prop_poison << BALLOON_F_PAGE_POISON |
			    (u64)b->prop_reporting << BALLOON_F_REPORTING,
		.config_bytes = CONFIG_BYTES,
		.n_queues = (u16)(Q_STATS + 1 + b->prop_reporting),
		.queue_size = QUEUE_SIZE,
	};
	int ret;

	if (balloon_find(dev->machine))
		return err_set(err, -EBUSY, "Only one balloon device is supported");
	ret = virtio_pci_init(&b->vp, &setup, err);
	if (ret < 0)
		return ret;
	timer_init(&b->poll, dev->machine->clock, poll_stats);
	served_init(&b->served, &b->vp, serve);
	return 0;
}

static void balloon_reset(struct device *dev)
{
	struct virtio_balloon *b = of_device(dev);

	virtio_pci_reset(&b->vp);
	poll_again(b);
}

static void balloon_fini(struct device *dev)
{
	struct virtio_balloon *b = of_device(dev);

	timer_del(&b->poll);
	served_fini(&b->served);
	virtio_pci_fini(&b->vp);
}

static const struct state_field balloon_state[] = {
	STATE_STRUCT(struct virtio_balloon, vp, virtio_pci_state),
	STATE(struct virtio_balloon, num_pages),
	STATE(struct virtio_balloon, actual),
	STATE(struct virtio_balloon, poison),
	STATE(struct virtio_balloon, known_stats),
	STATE_ARRAY(struct virtio_balloon, stats),
	STATE_END,
};

static int balloon_check(const void *loaded, struct error *err)
{
	const struct virtio_balloon *b = loaded;

	return virtio_pci_state_check(&b->vp, err);
}

static void balloon_post_load(struct device *dev)
{
	virtio_pci_post_load(dev);
	poll_again(of_device(dev));
}

static const struct prop balloon_props[] = {
	VIRTIO_PCI_PROPS(struct virtio_balloon, vp),
	PROP(struct virtio_balloon, prop_oom, "deflate-on-oom", PROP_KIND_BOOL, "off",
	     "the guest may take memory back when it has none left"),
	PROP(struct virtio_balloon, prop_reporting, "free-page-reporting", PROP_KIND_BOOL, "off",
	     "the guest says which memory is free for now, and the host takes it"),
	PROP(struct virtio_balloon, prop_poison, "page-poison", PROP_KIND_BOOL, "on",
	     "the guest may say what it fills free pages with"),
	PROP(struct virtio_balloon, prop_interval, "guest-stats-polling-interval", PROP_KIND_U32,
	     "0", "seconds between statistics for 'info balloon', 0: none"),
	PROP_END,
};

const struct device_class virtio_balloon_class = {
	.name = "virtio-balloon-pci",
	.help = "virtio balloon: the monitor's 'balloon' changes how much memory the guest has",
	.size = sizeof(struct virtio_balloon),
	.bus = DEVICE_ON_PCI,
	.user_creatable = true,
	.props = balloon_props,
	.init = balloon_init,
	.reset = balloon_reset,
	.fini = balloon_fini,
	.state = balloon_state,
	.state_check = balloon_check,
	.post_load = balloon_post_load,
	.pause = virtio_pci_pause,
	.resume = virtio_pci_resume,
};
