/* A network card on a fake machine, for tests: its peer writes down what it gets, the
 * main loop runs for a few turns when told to. */
#ifndef TESTS_LIB_NET_RIG_H
#define TESTS_LIB_NET_RIG_H

#include "devices/net/net.h"
#include "tests/lib/fake_machine.h"

#define RIG_RAM	 (4 * MiB)
#define RIG_IO	 0xc000
#define RIG_MSIX 0xe0000000
#define RIG_MEM	 0xe1000000
#define RIG_GSI	 11
#define RIG_KEPT 4 /* frames that are remembered */

struct net_rig {
	struct fake_machine fm;
	struct loop *loop;
	struct device *bridge, *dev;
	struct net_end peer;
	u8 devfn;
	bool busy;	/* the peer takes nothing */
	u16 send_queue; /* where frames for the card come from */
	unsigned got, writable;
	struct {
		u32 bytes;
		u16 queue;
		struct net_offload offload;
		u8 data[1600];
	} frames[RIG_KEPT]; /* frame n at n % RIG_KEPT */
};

/* A card of the class; `offloads`: as a tap with vnet headers. */
void net_rig_init(struct net_rig *r, const struct device_class *cls, bool offloads);
/* With so many queues; if there are several, mq=on. */
void net_rig_init_queues(struct net_rig *r, const struct device_class *cls, bool offloads,
			 u16 queues);
void net_rig_fini(struct net_rig *r);
/* Let the main loop do what there is to do. */
void net_rig_run(struct net_rig *r);
/* A frame for the card: destination (NULL: broadcast), bytes, a fill byte. */
void net_rig_send(struct net_rig *r, const u8 *to, u32 bytes, u8 fill);

#endif
