/* Split virtqueues as the device sees them: virtio 1.2, section 2.7.
 *
 * Knows guest memory and nothing else: not PCI, not threads.  Between
 * virtq_start and virtq_stop everything here belongs to one thread (a loop's);
 * before and after, to whoever sets the queue up, under the device's lock.
 *
 * Invariants: Q1 every byte of guest memory is read once, then judged and used;
 * Q2 the rings were resolved to host memory by virtq_start and lie in RAM;
 * Q3 whatever the driver writes, virtq_pop returns vectors inside guest memory or
 * -EINVAL, and after -EINVAL it returns -EINVAL until the next virtq_start. */
#ifndef DEVICES_VIRTIO_QUEUE_H
#define DEVICES_VIRTIO_QUEUE_H

#include "base/base.h"
#include "base/error.h"
#include "vmm/core/mem.h"
#include "vmm/core/state.h"

#define VIRTQ_MAX_SIZE 1024
/* A descriptor may straddle two regions of guest memory: vectors beyond one each. */
#define VIRTQ_SPARE_IOV 8

struct virtq {
	struct mem *mem; /* [const] */
	u16 max_size;	 /* [const] offered, a power of two; no chain is longer */
	/* Set by the driver while the queue does not run. */
	u16 size;
	u16 vector; /* MSI-X, 0xffff: none */
	bool enabled;
	u64 desc, avail, used; /* guest addresses */
	/* While it runs: its thread's. */
	bool running, indirect, event_idx;
	const u8 *desc_host, *avail_host;
	u8 *used_host;
	u16 last_avail;	    /* next entry of the available ring to look at */
	u16 used_next;	    /* next entry of the used ring to fill */
	u16 used_published; /* what the driver has been shown of it */
	u32 in_flight;	    /* popped and not pushed */
	u16 retry_at;	    /* kept requests from this head on come again */
	/* A bit a head: popped, and kept for another try when the queue runs again. */
	u64 kept[VIRTQ_MAX_SIZE / 64];
	bool broken;
	char error[96]; /* why it is broken */
};

extern const struct state_field virtq_state[];

/* A request: what the device reads, then what it writes, in vectors that are the
 * caller's (iov, room) and that neighbours in memory share. */
struct virtq_chain {
	struct iovec *iov;
	unsigned room;
	struct mem_iov out, in; /* in iov, one after the other */
	u64 out_bytes, in_bytes;
	u16 head;
};

void virtq_init(struct virtq *q, struct mem *mem, u16 max_size);
/* Power-on state; the queue must not run. */
void virtq_reset(struct virtq *q);

/* Place the rings as the legacy interface does from one page number. */
void virtq_set_legacy_page(struct virtq *q, u32 page);

/* Resolve the rings: 0, or -EINVAL (q->error says why) for a bad size, bad
 * alignment or addresses that are not RAM.  Keeps the indices. */
int virtq_start(struct virtq *q, bool indirect, bool event_idx);
void virtq_stop(struct virtq *q);

/* Next request: 1, 0 when there is none, or -EINVAL when the driver broke the
 * rules. */
int virtq_pop(struct virtq *q, struct virtq_chain *c);
/* True when virtq_pop would not return 0. */
bool virtq_has_more(const struct virtq *q);

/* Take back the latest n of those popped, none of which was pushed: they come again. */
void virtq_unpop(struct virtq *q, unsigned n);

/* The request that was popped at this head cannot be carried out for now: it is saved
 * with the queue, and after the next virtq_start it comes from virtq_pop again. */
void virtq_keep(struct virtq *q, u16 head);

/* The request just popped is not one at all: break the queue, and count it as given
 * back. */
void virtq_refuse(struct virtq *q, const char *why);

/* Give a request back; `written` bytes of its writable part were written.  The
 * driver sees it after virtq_flush. */
void virtq_push(struct virtq *q, u16 head, u32 written);
/* Show the driver what was pushed; true when it wants an interrupt for it. */
bool virtq_flush(struct virtq *q);

/* Ask the driver not to kick for now, or to kick again: then true means that
 * requests came in meanwhile, so look again. */
void virtq_quiet(struct virtq *q);
bool virtq_listen(struct virtq *q);

/* For who needs several requests at once and found too few.  How many wait now; and:
 * kick when there are more than `seen`, which that said before they were looked at.
 * True means that there are, so look again. */
u16 virtq_waiting(const struct virtq *q);
bool virtq_listen_beyond(struct virtq *q, u16 seen);

#endif
