/* Queues that are served on the main loop with the device's lock held: what devices
 * without threads of their own have in common.
 *
 * Nothing is in flight between two calls, so that the queues stop without waiting. */
#ifndef DEVICES_VIRTIO_SERVED_H
#define DEVICES_VIRTIO_SERVED_H

#include "base/loop.h"
#include "devices/virtio/pci.h"

#define SERVED_QUEUE_MAX 128 /* larger rings are for those with threads */
/* Requests taken from a queue in one turn of the loop. */
#define SERVED_BATCH 64

struct virtio_served;
struct served_kick {
	struct loop_watch watch;
	struct virtio_served *all;
};

struct virtio_served {
	struct virtio_pci *vp; /* [const] */
	/* The driver kicked, or the queues start: dev.lock is held, the queue runs. */
	void (*serve)(struct virtio_pci *vp, unsigned queue); /* [const] */
	struct served_kick kicks[VIRTIO_MOST_QUEUES];	      /* [main] */
	struct iovec iov[SERVED_QUEUE_MAX + VIRTQ_SPARE_IOV]; /* [dev.lock] of one request */
	bool watched;					      /* [const] */
};

/* After virtio_pci_init, before virtio_pci_fini. */
void served_init(struct virtio_served *s, struct virtio_pci *vp,
		 void (*serve)(struct virtio_pci *vp, unsigned queue));
void served_fini(struct virtio_served *s);
/* To be virtio_ops.start's: look at every queue, on the main loop. */
void served_start(struct virtio_served *s);
/* The main loop is to look at a queue (again).  [any thread] */
void served_again(struct virtio_served *s, unsigned queue);

bool served_runs(const struct virtio_pci *vp, unsigned queue);
/* The next request: false when there is none, or the queue just broke. */
bool served_pop(struct virtio_served *s, unsigned queue, struct virtq_chain *c);
/* The same, and when there is none the driver is asked to kick for it: for those who need
 * one when something happens elsewhere, not when the driver kicks. */
bool served_pop_or_ask(struct virtio_served *s, unsigned queue, struct virtq_chain *c);
/* The request just popped is none: breaks the queue. */
void served_refuse(struct virtio_served *s, unsigned queue, const char *why);
/* Copy to the part of a request that the device writes; returns how much fitted. */
u32 served_put(struct virtio_served *s, const struct virtq_chain *c, const void *data, u64 bytes);
/* Show the driver what was pushed, and interrupt it if it wants that. */
void served_flush(struct virtio_served *s, unsigned queue);
/* All that could be done is done: flush, and have the driver kick for more; true when
 * there is more already. */
bool served_idle(struct virtio_served *s, unsigned queue);

#endif
