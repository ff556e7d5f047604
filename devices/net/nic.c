/* What every NIC has; see nic.h.  Thread: main. */
#include "devices/net/nic.h"

#include "devices/net/checksum.h"

#include <errno.h>
#include <stdio.h>

bool eth_is_broadcast(const u8 *addr)
{
	static const u8 all[ETH_ADDR_BYTES] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

	return !memcmp(addr, all, sizeof(all));
}

static int choose_mac(struct nic *nic, struct device *dev, struct error *err)
{
	char text[18];

	if (nic->prop_mac && !net_parse_mac(nic->prop_mac, nic->mac))
		return err_set(err, -EINVAL, "Property '%s.mac' doesn't take value '%s'",
			       dev->cls->name, nic->prop_mac);
	net_give_mac(dev->machine->net, nic->mac, nic->prop_mac != NULL);
	net_format_mac(text, nic->mac);
	free(nic->prop_mac);
	nic->prop_mac = xstrdup(text);
	return 0;
}

int nic_init(struct nic *nic, struct device *dev, const struct net_ops *ops, struct error *err)
{
	bool named = strncmp(dev->id, dev->cls->name, strlen(dev->cls->name)) != 0;
	char name[sizeof(nic->end.name)];
	int ret = choose_mac(nic, dev, err);

	if (ret < 0)
		return ret;
	if (nic->netdev && nic->netdev->peer)
		return err_set(err, -EBUSY,
			       "Property '%s.netdev' can't take value '%s', it's in use",
			       dev->cls->name, nic->netdev->name);
	net_make_name(dev->machine->net, name, dev->cls->name);
	net_end_init(&nic->end, dev->machine->net, ops, named ? dev->id : name);
	nic->end.is_nic = true;
	snprintf(nic->end.info, sizeof(nic->end.info), "model=%s,macaddr=%s", dev->cls->name,
		 nic->prop_mac);
	if (nic->netdev)
		net_join(&nic->end, nic->netdev);
	return 0;
}

void nic_link_changed(struct nic *nic)
{
	if (nic->netdev && nic->end.peer != nic->netdev)
		nic->netdev = NULL;
}

void nic_fini(struct nic *nic)
{
	net_end_fini(&nic->end);
}
