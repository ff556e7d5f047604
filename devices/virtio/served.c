/* Queues that are served on the main loop; see served.h.
 *
 * virtio 1.2, section 2.7.  Thread: main, with the device's lock held, but for what
 * served.h says. */
#include "devices/virtio/served.h"

#include "base/io.h"

static struct virtq *queue_of(const struct virtio_pci *vp, unsigned queue)
{
	assert(queue < vp->n_queues);
	return &virtio_queue_at(vp, queue)->vq;
}

bool served_runs(const struct virtio_pci *vp, unsigned queue)
{
	const struct virtq *q = queue_of(vp, queue);

	return vp->started && q->running && !q->broken;
}

static void kicked(struct loop_watch *watch, u32 revents)
{
	struct served_kick *kick = container_of(watch, struct served_kick, watch);
	struct virtio_served *s = kick->all;
	unsigned queue = (unsigned)(kick - s->kicks);

	LOCK_SCOPE(&s->vp->pd.dev.lock);
	if (served_runs(s->vp, queue))
		s->serve(s->vp, queue);
}

void served_init(struct virtio_served *s, struct virtio_pci *vp,
		 void (*serve)(struct virtio_pci *vp, unsigned queue))
{
	struct loop *loop = vp->pd.dev.machine->loop;

	s->vp = vp;
	s->serve = serve;
	if (!loop)
		return;
	for (unsigned i = 0; i < vp->n_queues; i++) {
		assert(virtio_queue_at(vp, i)->vq.max_size <= SERVED_QUEUE_MAX);
		s->kicks[i].all = s;
		loop_watch_bell(loop, &s->kicks[i].watch, virtio_queue_at(vp, i)->kick_fd, kicked);
	}
	s->watched = true;
}

void served_fini(struct virtio_served *s)
{
	for (unsigned i = 0; s->watched && i < s->vp->n_queues; i++)
		loop_watch_del(&s->kicks[i].watch);
}

void served_again(struct virtio_served *s, unsigned queue)
{
	static const u64 one = 1;

	sys_write(virtio_queue_at(s->vp, queue)->kick_fd, &one, sizeof(one));
}

void served_start(struct virtio_served *s)
{
	for (unsigned i = 0; i < s->vp->n_queues; i++)
		if (served_runs(s->vp, i))
			served_again(s, i);
}

bool served_pop(struct virtio_served *s, unsigned queue, struct virtq_chain *c)
{
	int ret;

	lock_assert(&s->vp->pd.dev.lock);
	if (!served_runs(s->vp, queue))
		return false;
	*c = (struct virtq_chain){.iov = s->iov, .room = ARRAY_LEN(s->iov)};
	ret = virtq_pop(queue_of(s->vp, queue), c);
	if (ret < 0)
		virtio_pci_queue_broke(s->vp, queue);
	return ret > 0;
}

bool served_pop_or_ask(struct virtio_served *s, unsigned queue, struct virtq_chain *c)
{
	do
		if (served_pop(s, queue, c))
			return true;
	while (served_idle(s, queue));
	return false;
}

void served_refuse(struct virtio_served *s, unsigned queue, const char *why)
{
	virtq_refuse(queue_of(s->vp, queue), why);
	virtio_pci_queue_broke(s->vp, queue);
}

u32 served_put(struct virtio_served *s, const struct virtq_chain *c, const void *data, u64 bytes)
{
	u64 done = iov_copy_to(c->in.iov, c->in.n, 0, data, MIN(bytes, c->in_bytes));

	mem_mark_dirty_iov(s->vp->pd.dev.machine->mem, c->in.iov, c->in.n, done);
	return (u32)done;
}

void served_flush(struct virtio_served *s, unsigned queue)
{
	/* A broken queue shows what it had done before, too. */
	if (s->vp->started && queue_of(s->vp, queue)->running &&
	    virtq_flush(queue_of(s->vp, queue)))
		virtio_pci_interrupt(s->vp, queue);
}

bool served_idle(struct virtio_served *s, unsigned queue)
{
	served_flush(s, queue);
	return served_runs(s->vp, queue) && virtq_listen(queue_of(s->vp, queue));
}
