/* What a device may know and ask of its machine.
 *
 * The assembly (vmm/machine.c) embeds this struct and fills it in; device tests
 * make one with fake parts.  Requests may come from any thread and only note what
 * is wanted: the main thread carries it out. */
#ifndef VMM_CORE_MACHINE_H
#define VMM_CORE_MACHINE_H

#include "base/base.h"
#include "base/list.h"
#include "vmm/core/bus.h"
#include "vmm/core/clock.h"
#include "vmm/core/irq.h"
#include "vmm/core/mem.h"

enum machine_request {
	MACHINE_RESET,	  /* all devices and vCPUs back to power-on state */
	MACHINE_SHUTDOWN, /* guest powered off (S5) */
	MACHINE_PANIC,	  /* guest said it crashed */
	MACHINE_EXIT,	  /* isa-debug-exit: end with this exit status */
	MACHINE_WAKEUP,
	MACHINE_IO_ERROR, /* a disk request failed and waits for the machine to go on */
};

struct machine;
struct net;
struct machine_ops {
	void (*request)(struct machine *m, enum machine_request what, int code);
};

struct machine {
	const struct machine_ops *ops;	/* [const] */
	struct mem *mem;		/* [const] */
	struct bus *pio, *mmio;		/* [const] */
	struct irq *irq;		/* [const] */
	struct clock *clock;		/* [const] */
	struct loop *loop;		/* [const] the main thread's; NULL in some tests */
	struct net *net;		/* [const] networks; NULL in some tests */
	struct list devices;		/* [control] struct device.link, in order of creation */
	u32 cpus, max_cpus;		/* [const] there are, there is room for */
	u32 *apic_ids;			/* [const] max_cpus of them; NULL: 0, 1, 2 ... */
	u64 ram_below_4g, ram_above_4g; /* [const] bytes */
	bool has_kvm, has_smm;		/* [const] what the host can do */
	bool a20;			/* [atomic] line state; KVM guests never mask it */
};

static inline void machine_request(struct machine *m, enum machine_request what, int code)
{
	m->ops->request(m, what, code);
}

static inline u32 machine_apic_id(const struct machine *m, u32 cpu)
{
	return m->apic_ids ? m->apic_ids[cpu] : cpu;
}

#endif
