/* Networks of a machine: backends, hubs, and the cards of -nic and -net.
 *
 * Order, as the reference has it: what -netdev says, then -nic, then -net; cards are made
 * with the board, before drives and -device. */
#include "vmm/vm.h"

#include "base/log.h"
#include "devices/device.h"
#include "devices/net/backends.h"
#include "devices/net/dump.h"
#include "devices/net/net.h"
#include "firmware/firmware.h"

#include <errno.h>
#include <stdio.h>

#define HUB 0 /* the one of -net */

static const struct {
	const char *driver, *rom;
} nic_models[] = {{"e1000", "pxe-e1000.rom"}, {"virtio-net-pci", "pxe-virtio.rom"}};

char *vm_nic_rom(struct vm *vm, const char *driver)
{
	AUTO_FREE const char **dirs = NULL;
	struct error err;
	char *path = NULL;
	unsigned n;

	dirs = vm_firmware_dirs(vm, &n);
	for (unsigned i = 0; i < ARRAY_LEN(nic_models); i++)
		if (!strcmp(nic_models[i].driver, driver) &&
		    firmware_find(&path, nic_models[i].rom, dirs, n, &err) < 0)
			log_warn("%s: it cannot boot from the network: %s", driver, err.text);
	return path;
}

/* --- backends ------------------------------------------------------------------------ */

/* Names of those that got none; '#' keeps them apart from users' own. */
static void make_name(struct net *net, char *to, size_t room)
{
	unsigned n = 0;

	do
		snprintf(to, room, "#net%03u", n++);
	while (net_find(net, to));
}

static int open_backend(struct vm *vm, struct net_end **out, const struct net_config *c,
			struct error *err)
{
	const struct net_backend *b = net_backend_find(opts_get(&c->opts, "type"));
	const char *id = opts_get(&c->opts, "id");
	struct net *net = vm->machine.net;
	char made_up[16];

	assert(b); /* the option was checked */
	if (id && net_find(net, id))
		return err_set(err, -EEXIST, "Duplicate ID '%s' for netdev", id);
	make_name(net, made_up, sizeof(made_up));
	return b->open(out, net, id ? id : made_up, &c->opts, err);
}

int vm_open_netdevs(struct vm *vm, struct error *err)
{
	struct net_end *end;

	net_new(&vm->machine.net, vm->loop, vm->machine.clock);
	list_for_each (pos, &vm->config->nets) {
		struct net_config *c = list_entry(pos, struct net_config, link);

		if (c->use == NET_USE_NETDEV && open_backend(vm, &end, c, err) < 0)
			return err_prefix(err, "%s", c->source);
	}
	return 0;
}

void vm_close_nets(struct vm *vm)
{
	net_free(vm->machine.net);
	vm->machine.net = NULL;
}

/* --- cards --------------------------------------------------------------------------- */

static const char *driver_of(const char *model)
{
	if (!model)
		return "e1000";
	if (!strcmp(model, "virtio"))
		return "virtio-net-pci";
	for (unsigned i = 0; i < ARRAY_LEN(nic_models); i++)
		if (!strcmp(nic_models[i].driver, model))
			return model;
	return NULL;
}

/* A card of the options model, mac (or macaddr), addr, name; peer may be NULL. */
static int add_nic(struct vm *vm, const struct opts *opts, struct net_end *peer, struct error *err)
{
	const char *model = opts_get(opts, "model"), *driver = driver_of(model);
	const char *mac = opts_get(opts, opts_has(opts, "mac") ? "mac" : "macaddr");
	const char *addr = opts_get(opts, "addr"), *name = opts_get(opts, "name");
	const char *vectors = opts_get(opts, "vectors");
	struct prop_value values[5];
	struct device_args args = {.id = name, .parent = vm->host_bridge, .values = values};
	AUTO_FREE char *rom = NULL;
	struct device *dev;

	if (!driver)
		return err_set(err, -EINVAL, "Unsupported NIC model: %s", model);
	rom = vm_nic_rom(vm, driver);
	if (mac)
		values[args.n_values++] = (struct prop_value){.name = "mac", .text = mac};
	if (addr)
		values[args.n_values++] = (struct prop_value){.name = "addr", .text = addr};
	if (rom)
		values[args.n_values++] = (struct prop_value){.name = "romfile", .text = rom};
	if (vectors && !strcmp(driver, "virtio-net-pci")) /* the other has no MSI-X */
		values[args.n_values++] = (struct prop_value){.name = "vectors", .text = vectors};
	if (peer)
		values[args.n_values++] = (struct prop_value){.name = "netdev", .ptr = peer};
	return vm_add_device(vm, &dev, driver, &args, err);
}

static int add_from_nic(struct vm *vm, const struct net_config *c, struct error *err)
{
	struct net_end *end;

	if (open_backend(vm, &end, c, err) < 0)
		return err_prefix(err, "%s", c->source);
	return add_nic(vm, &c->opts, end, err);
}

/* -net nic: on the hub, or on the netdev that it names. */
static int add_from_net_nic(struct vm *vm, const struct net_config *c, struct error *err)
{
	const char *netdev = opts_get(&c->opts, "netdev");
	struct net_end *peer;

	if (!netdev)
		return add_nic(vm, &c->opts, net_hub_port(vm->machine.net, HUB, NULL), err);
	peer = net_find(vm->machine.net, netdev);
	if (!peer || peer->is_nic)
		return err_set(err, -ENOENT, "%s: netdev '%s' not found", c->source, netdev);
	if (peer->peer)
		return err_set(err, -EBUSY, "%s: netdev '%s' is already in use", c->source, netdev);
	return add_nic(vm, &c->opts, peer, err);
}

static int add_from_net(struct vm *vm, const struct net_config *c, struct error *err)
{
	struct net_end *end;

	if (!strcmp(opts_get(&c->opts, "type"), "nic"))
		return add_from_net_nic(vm, c, err);
	if (open_backend(vm, &end, c, err) < 0)
		return err_prefix(err, "%s", c->source);
	net_join(end, net_hub_port(vm->machine.net, HUB, NULL));
	return 0;
}

/* -object filter-dump */
static int add_filter(struct vm *vm, const struct node_config *f, struct error *err)
{
	static const char *const ways[] = {[NET_DUMP_RX - 1] = "rx",
					   [NET_DUMP_TX - 1] = "tx",
					   [NET_DUMP_ALL - 1] = "all",
					   NULL};
	const char *queue = opts_get(&f->opts, "queue"), *status = opts_get(&f->opts, "status");
	struct net_end *end = net_find(vm->machine.net, opts_get(&f->opts, "netdev"));
	struct net_dump_options opt = {
		.id = f->name,
		.file = opts_get(&f->opts, "file"),
		.max_bytes = 65536,
		.way = queue ? (enum net_dump_way)(parse_choice(queue, ways) + 1) : NET_DUMP_ALL,
		.off = status && !strcmp(status, "off"),
	};

	if (!end || end->is_nic)
		return err_set(err, -ENOENT, "%s: Parameter 'netdev' expects a network backend id",
			       f->source);
	if (opts_get_u32(&f->opts, "maxlen", &opt.max_bytes, err) < 0 ||
	    net_dump_add(end, &opt, err) < 0)
		return err_prefix(err, "%s", f->source);
	return 0;
}

static int add_filters(struct vm *vm, struct error *err)
{
	int ret = 0;

	list_for_each (pos, &vm->config->filters)
		if (ret == 0)
			ret = add_filter(vm, list_entry(pos, struct node_config, link), err);
	return ret;
}

int vm_add_nics(struct vm *vm, struct error *err)
{
	static const enum net_use order[] = {NET_USE_NIC, NET_USE_NET};
	int ret = 0;

	for (unsigned i = 0; i < ARRAY_LEN(order); i++)
		list_for_each (pos, &vm->config->nets) {
			struct net_config *c = list_entry(pos, struct net_config, link);

			if (ret < 0 || c->use != order[i])
				continue;
			ret = order[i] == NET_USE_NIC ? add_from_nic(vm, c, err)
						      : add_from_net(vm, c, err);
		}
	return ret < 0 ? ret : add_filters(vm, err);
}

/* --- what leads nowhere ------------------------------------------------------------------ */

static void warn_of_hub(struct vm *vm)
{
	unsigned nics = 0, hosts = 0;

	list_for_each (pos, net_ends(vm->machine.net)) {
		const struct net_end *end = list_entry(pos, struct net_end, link);

		if (net_hub_of(end) != HUB || !end->peer)
			continue;
		if (end->peer->is_nic)
			nics++;
		else
			hosts++;
	}
	if (hosts && !nics)
		log_warn("hub %u with no nics", HUB);
	if (nics && !hosts)
		log_warn("hub %u is not connected to host network", HUB);
}

void vm_warn_of_nets(struct vm *vm)
{
	warn_of_hub(vm);
	list_for_each (pos, net_ends(vm->machine.net)) {
		const struct net_end *end = list_entry(pos, struct net_end, link);

		if (!end->peer && net_hub_of(end) < 0)
			log_warn("%s %s has no peer", end->is_nic ? "nic" : "netdev", end->name);
	}
}
