/* Interrupts: shared level-triggered lines (GSIs), MSI, and eventfd routes.
 *
 * A GSI is high while any of its sources is.  KVM's irqchip takes it from there;
 * without KVM (tests) the ops record.  [any thread] */
#ifndef VMM_CORE_IRQ_H
#define VMM_CORE_IRQ_H

#include "base/base.h"
#include "base/error.h"

struct irq;

struct irq_ops {
	void (*set_gsi)(void *arg, u32 gsi, bool level);
	void (*msi)(void *arg, u64 addr, u32 data);
	/* A route from an eventfd to an MSI: *handle is for the next two. */
	int (*route_add)(void *arg, int fd, u64 addr, u32 data, u32 *handle);
	int (*route_set)(void *arg, u32 handle, u64 addr, u32 data);
	void (*route_del)(void *arg, u32 handle, int fd);
};

#define IRQ_GSIS 24

int irq_new(struct irq **out, const struct irq_ops *ops, void *arg);
void irq_free(struct irq *irq);

/* One source of a line.  gsi IRQ_NONE: not connected. */
#define IRQ_NONE UINT32_MAX
struct irq_line {
	struct irq *irq;
	u32 gsi;
	bool level; /* [irq.lock] */
};
void irq_line_init(struct irq_line *line, struct irq *irq, u32 gsi);
void irq_line_set(struct irq_line *line, bool level);
void irq_line_pulse(struct irq_line *line);	       /* up and down: edge devices */
void irq_line_reroute(struct irq_line *line, u32 gsi); /* keeps its level */

void irq_msi(struct irq *irq, u64 addr, u32 data);

/* An MSI-X vector served by an eventfd; fd is ours until _del. */
struct irq_route {
	struct irq *irq;
	u32 handle;
	int fd; /* -1: none */
};
int irq_route_add(struct irq *irq, struct irq_route *route, u64 addr, u32 data);
int irq_route_set(struct irq_route *route, u64 addr, u32 data);
void irq_route_del(struct irq_route *route);
void irq_route_signal(struct irq_route *route); /* when not wired into a ring */

/* For `info irq`: how often each GSI rose. */
u64 irq_count(struct irq *irq, u32 gsi);
bool irq_level(struct irq *irq, u32 gsi);

#endif
