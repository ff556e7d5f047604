/* What every NIC has: an end of a wire, an address, a place in the boot order. */
#ifndef DEVICES_NET_NIC_H
#define DEVICES_NET_NIC_H

#include "devices/device.h"
#include "devices/net/net.h"

struct nic {
	struct net_end end;	/* [main] */
	struct net_end *netdev; /* [main] property: the peer-to-be; NULL: none */
	char *prop_mac;		/* [const] property; after nic_init the address as text */
	u32 prop_bootindex;	/* [const] */
	u8 mac[ETH_ADDR_BYTES]; /* [const] as the machine gave it */
};

#define NIC_PROPS(type, member)                                                                    \
	PROP(type, member.prop_mac, "mac", PROP_KIND_STR, NULL,                                    \
	     "Ethernet 6-byte MAC Address, example: 52:54:00:12:34:56"),                           \
		PROP(type, member.netdev, "netdev", PROP_KIND_NETDEV, NULL,                        \
		     "ID of a netdev to use as a backend"),                                        \
		PROP(type, member.prop_bootindex, "bootindex", PROP_KIND_U32, "0xffffffff",        \
		     "place in the boot order")

/* In a NIC's init, before anything that must be undone. */
int nic_init(struct nic *nic, struct device *dev, const struct net_ops *ops, struct error *err);
void nic_fini(struct nic *nic);
/* To be called when the link changed: a backend that went is nobody's netdev. */
void nic_link_changed(struct nic *nic);

/* Ethernet addresses. */
static inline bool eth_is_group(const u8 *addr)
{
	return addr[0] & 1;
}
bool eth_is_broadcast(const u8 *addr);

#endif
