/* Shared interrupt lines, MSI, eventfd routes; see irq.h.
 *
 * Thread: any.  irq.lock orders the level changes of all lines, so that KVM sees
 * them as we counted them.  Invariant: `high[gsi]` is the number of lines with
 * that gsi whose level is true. */
#include "vmm/core/irq.h"

#include "base/io.h"
#include "base/log.h"
#include "base/thread.h"

#include <errno.h>

struct irq {
	const struct irq_ops *ops; /* [const] */
	void *arg;		   /* [const] */
	struct mutex lock;
	u32 high[IRQ_GSIS];  /* [irq.lock] lines that hold it up */
	u64 rises[IRQ_GSIS]; /* [irq.lock] */
};

int irq_new(struct irq **out, const struct irq_ops *ops, void *arg)
{
	struct irq *irq = xnew(struct irq);

	irq->ops = ops;
	irq->arg = arg;
	mutex_init(&irq->lock);
	*out = irq;
	return 0;
}

void irq_free(struct irq *irq)
{
	if (!irq)
		return;
	mutex_fini(&irq->lock);
	free(irq);
}

void irq_line_init(struct irq_line *line, struct irq *irq, u32 gsi)
{
	assert(gsi < IRQ_GSIS || gsi == IRQ_NONE);
	*line = (struct irq_line){.irq = irq, .gsi = gsi};
}

static void raise_gsi(struct irq *irq, u32 gsi)
{
	lock_assert(&irq->lock);
	if (gsi == IRQ_NONE || irq->high[gsi]++ != 0)
		return;
	irq->rises[gsi]++;
	TRACE(TRACE_IRQ, "gsi %u up", gsi);
	irq->ops->set_gsi(irq->arg, gsi, true);
}

static void lower_gsi(struct irq *irq, u32 gsi)
{
	lock_assert(&irq->lock);
	if (gsi == IRQ_NONE)
		return;
	assert(irq->high[gsi] > 0);
	if (--irq->high[gsi] != 0)
		return;
	TRACE(TRACE_IRQ, "gsi %u down", gsi);
	irq->ops->set_gsi(irq->arg, gsi, false);
}

static void line_set(struct irq_line *line, bool level)
{
	if (line->level == level)
		return;
	line->level = level;
	if (level)
		raise_gsi(line->irq, line->gsi);
	else
		lower_gsi(line->irq, line->gsi);
}

void irq_line_set(struct irq_line *line, bool level)
{
	LOCK_SCOPE(&line->irq->lock);
	line_set(line, level);
}

void irq_line_pulse(struct irq_line *line)
{
	LOCK_SCOPE(&line->irq->lock);
	line_set(line, true);
	line_set(line, false);
}

void irq_line_reroute(struct irq_line *line, u32 gsi)
{
	LOCK_SCOPE(&line->irq->lock);
	assert(gsi < IRQ_GSIS || gsi == IRQ_NONE);
	if (line->gsi == gsi)
		return;
	if (line->level)
		lower_gsi(line->irq, line->gsi);
	line->gsi = gsi;
	if (line->level)
		raise_gsi(line->irq, line->gsi);
}

void irq_msi(struct irq *irq, u64 addr, u32 data)
{
	TRACE(TRACE_IRQ, "msi 0x%llx 0x%x", (unsigned long long)addr, data);
	irq->ops->msi(irq->arg, addr, data);
}

int irq_route_add(struct irq *irq, struct irq_route *route, u64 addr, u32 data)
{
	int fd = sys_eventfd();
	int ret;

	*route = (struct irq_route){.irq = irq, .fd = -1};
	if (fd < 0)
		return fd;
	ret = irq->ops->route_add(irq->arg, fd, addr, data, &route->handle);
	if (ret < 0) {
		sys_close(fd);
		return ret;
	}
	route->fd = fd;
	return 0;
}

int irq_route_set(struct irq_route *route, u64 addr, u32 data)
{
	struct irq *irq = route->irq;

	assert(route->fd >= 0);
	return irq->ops->route_set(irq->arg, route->handle, addr, data);
}

void irq_route_del(struct irq_route *route)
{
	if (route->fd < 0)
		return;
	route->irq->ops->route_del(route->irq->arg, route->handle, route->fd);
	sys_close(route->fd);
	route->fd = -1;
}

void irq_route_signal(struct irq_route *route)
{
	const u64 one = 1;

	assert(route->fd >= 0);
	/* -EAGAIN: the counter is full, so the interrupt is pending anyway. */
	(void)sys_write(route->fd, &one, sizeof(one));
}

u64 irq_count(struct irq *irq, u32 gsi)
{
	LOCK_SCOPE(&irq->lock);
	assert(gsi < IRQ_GSIS);
	return irq->rises[gsi];
}

bool irq_level(struct irq *irq, u32 gsi)
{
	LOCK_SCOPE(&irq->lock);
	assert(gsi < IRQ_GSIS);
	return irq->high[gsi] != 0;
}
